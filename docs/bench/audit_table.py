"""Prints the table of what a log costs, of docs/benchmarks.md, from audit.json: none is typed."""

import json
from pathlib import Path

HERE = Path(__file__).parent


def table(kept: dict) -> str:
    """The rows, one a line, in Markdown."""
    results = kept["results"]
    append, verify, size = results["append"], results["verify"], results["size"]
    proofs, run = results["proofs"], results["run"]
    sizes = ", ".join(f"{it['size']:,}" for it in proofs)
    digests = ", ".join(f"{it['digests']:.1f}" for it in proofs)
    lengths = ", ".join(f"{it['bytes']:.0f}" for it in proofs)
    made, verified = ([it[what] for it in proofs] for what in ("made_us", "verified_us"))
    rows = [
        ("what", "measured"),
        ("---", "---"),
        (
            "append: entry and signed checkpoint, on disk, beside the plain insert of the same "
            "body with the same durability (SQLite, write-ahead log, `synchronous=FULL`, unique "
            "key)",
            f"{append['append_us']:.0f} and {append['insert_us']:.0f} µs; "
            f"**{append['append_over_insert']:.2f}** times as much (turns of {append['block']} "
            f"entries from {append['append_over_insert_least']:.2f} to "
            f"{append['append_over_insert_most']:.2f})",
        ),
        (
            "the same beside a plain insert without write-ahead log, as SQLite does by itself",
            f"{append['append_over_default_insert']:.2f}",
        ),
        (
            "of these on the CPU: append, plain insert",
            f"{append['append_cpu_us']:.0f} and {append['insert_cpu_us']:.0f} µs",
        ),
        (
            f"verifying {verify['entries']:,} entries (every leaf, every body, canonical form, "
            f"root, text of every checkpoint, {verify['signatures_verified']:,} signatures) beside "
            "one pass of SHA-256 and `json.loads` over the same bytes",
            f"{verify['check_cpu_s']:.1f} and {verify['one_pass_cpu_s']:.1f} CPU seconds; "
            f"**{verify['check_over_one_pass']:.1f}** times as much",
        ),
        (
            "the same with the signature of every checkpoint (`--every-signature`)",
            f"{verify['every_signature_over_one_pass']:.1f} times as much",
        ),
        (
            "bytes on disk of an entry, all included; in a plain table; header and body alone",
            f"{size['bytes_each']:.0f}; {size['plain_bytes_each']:.0f}; "
            f"{size['written_bytes_each']:.0f}",
        ),
        (
            f"digests in a proof, and bytes of the proof file, at {sizes} entries",
            f"{digests}; {lengths} bytes",
        ),
        (
            "making such a proof; verifying it",
            f"{min(made):.0f} to {max(made):.0f} µs; {min(verified):.0f} to {max(verified):.0f} µs",
        ),
        (
            f"a run with {run['train_s']:.0f} s of training at ten hospitals: its "
            f"{run['entries']} entries times what one costs, as a share of its wall time",
            f"{run['counted_share']:.2%}",
        ),
        (
            "the same, measured inside all logs, with opening and closing them, cosigning, "
            "handing over",
            f"**{run['measured_share']:.1%}**",
        ),
    ]
    return "\n".join(f"| {what} | {measured} |" for what, measured in rows)


if __name__ == "__main__":
    print(table(json.loads((HERE / "audit.json").read_text())))
