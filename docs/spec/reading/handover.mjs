// What is handed over: policies, requests to cosign, proof files, folders of tiles.

import {
  CANNOT_TELL,
  COSIGNATURE,
  COSIGNATURE_MLDSA44,
  LOG,
  Refused,
  canonical,
  checkPlaces,
  checkpoint,
  decimal,
  expect,
  header,
  hex,
  isObject,
  joined,
  key,
  leafHash,
  note,
  parsed,
  refuse,
  root,
  sha256,
  signers,
  unbase64,
  utf8,
  verifyConsistency,
  verifyInclusion,
} from "./formats.mjs";

// 6. Policies.

export const defaultThreshold = (cosigners) =>
  Math.max(1, Math.min(cosigners - 1, Math.ceil((3 * cosigners) / 4)));

export function policy(bytes) {
  const bad = (holds, found) => expect(holds, "bad-policy", found);
  const text = utf8(bytes, "bad-policy");
  bad(text.endsWith("\n"), "a last line without newline");
  const read = { logs: [], witnesses: new Map(), groups: new Map(), quorum: null };
  const taken = new Set();
  const isKnown = (name) => read.witnesses.has(name) || read.groups.has(name);
  const fresh = (name) => bad(name !== "none" && !isKnown(name), `name ${name} again`);
  const keyOf = (vkey, algorithms) => {
    const made = key(vkey);
    bad(algorithms.includes(made.algorithm), `a key of type ${made.algorithm}`);
    return made;
  };
  for (const meant of text.slice(0, -1).split("\n")) {
    bad(!/[\0-\x08\x0a-\x1f\x7f]/.test(meant), "a control character");
    const [verb, ...words] = meant.replace(/^[ \t]+|[ \t]+$/g, "").split(/[ \t]+/);
    if (verb === "" || verb.startsWith("#")) continue;
    if (verb === "log" && [1, 2].includes(words.length)) {
      read.logs.push(keyOf(words[0], [LOG, COSIGNATURE_MLDSA44]));
    } else if (verb === "witness" && [2, 3].includes(words.length)) {
      fresh(words[0]);
      read.witnesses.set(words[0], keyOf(words[1], [COSIGNATURE, COSIGNATURE_MLDSA44]));
    } else if (verb === "group" && words.length >= 3) {
      const [name, least, ...members] = words;
      fresh(name);
      for (const member of members) {
        bad(isKnown(member) && !taken.has(member), `member ${member}`);
        taken.add(member);
      }
      const count = { all: members.length, any: 1 }[least] ?? Number(decimal(least, "bad-policy"));
      bad(count >= 1 && count <= members.length, `${count} of ${members.length}`);
      read.groups.set(name, { count, members });
    } else if (verb === "quorum" && words.length === 1 && read.quorum === null) {
      bad(words[0] === "none" || isKnown(words[0]), `quorum ${words[0]}`);
      read.quorum = words[0];
    } else {
      bad(false, `line ${meant}`);
    }
  }
  bad(read.quorum !== null, "no quorum");
  checkRoles(read.logs, [...read.witnesses.values()]);
  return read;
}

export function checkRoles(logs, witnesses) {
  const publics = (keys) => keys.map((one) => hex(one.bytes));
  for (const all of [publics(logs), publics(witnesses)])
    expect(new Set(all).size === all.length, "bad-policy", "one key twice");
  const both = publics(witnesses).some((it) => publics(logs).includes(it));
  expect(!both, "one-key-two-roles", "one key signs a log and cosigns");
}

export function witnessed(rules, read, notBefore = 0, notAfter = Infinity) {
  const head = checkpoint(read.text);
  const logs = rules.logs.filter((one) => one.name === head.origin);
  expect(logs.length > 0, "other-log", `log ${head.origin}`);
  const found = signers(read, [...logs, ...rules.witnesses.values()]);
  expect(logs.some((one) => found.has(one)), "unsigned", "no signature by its log");
  const cosigned = {};
  for (const [name, known] of rules.witnesses) {
    const time = found.get(known);
    if (time !== undefined && time >= notBefore && time <= notAfter) cosigned[name] = time;
  }
  const met = new Set(["none", ...Object.keys(cosigned)]);
  for (const [name, { count, members }] of rules.groups)
    if (members.filter((it) => met.has(it)).length >= count) met.add(name);
  expect(met.has(rules.quorum), "no-quorum", `cosigned by ${Object.keys(cosigned)}`);
  return { head, cosigned };
}

// 7. Cosigning.

export function request(bytes) {
  const text = utf8(bytes, "bad-request");
  const split = text.indexOf("\n\n");
  expect(split >= 0 && text.startsWith("old "), "bad-request", "no old size, proof, empty line");
  const [first, ...lines] = text.slice(0, split).split("\n");
  expect(lines.length <= 63, "bad-request", `${lines.length} digests`);
  const old = decimal(first.slice(4), "bad-request");
  const proof = lines.map((one) => unbase64(one, "bad-request", 32));
  const read = as("bad-request", () => note(Buffer.from(text.slice(split + 2))));
  return { old, proof, read, head: as("bad-request", () => checkpoint(read.text)) };
}

function as(reason, check) {
  try {
    return check();
  } catch (error) {
    if (error instanceof Refused && !CANNOT_TELL.has(error.reason)) refuse(reason, error.message);
    throw error;
  }
}

// What a cosigner decides, from the logs that it follows and the newest heads that it has seen.
export function considered(asked, logs, seen) {
  const { old, proof, read, head } = asked;
  const known = logs[head.origin];
  expect(known !== undefined, "unknown-log", head.origin);
  as("unknown-key", () => signers(read, known));
  expect(old <= head.size, "bad-request", `from ${old} to ${head.size}`);
  const last = seen[head.origin] ?? { size: 0n, root: sha256() };
  expect(old === last.size, "stale", `from ${old}, not ${last.size}`);
  expect(old !== head.size || head.root.equals(last.root), "forked", `two roots of size ${old}`);
  as("inconsistent", () => {
    if (old === 0n) expect(proof.length === 0, "bad-proof-length", "a proof from nothing");
    else verifyConsistency(old, head.size, proof, last.root, head.root);
  });
  return head;
}

const ENVELOPE = Buffer.from("fedkd-envelope/1\n");
const FITS = {
  asks: (it) => typeof it === "string" && it !== "" && [...it].length <= 65536,
  notes: (it) => FITS.asks(it),
  prove_from: (it) => Number.isSafeInteger(it) && it >= 0,
  stands: (it) => Array.isArray(it) && it.length === 2 && isOrigin(it[0]) && FITS.prove_from(it[1]),
};
const isOrigin = (it) => FITS.asks(it) && [...it].length <= 256;

export function letter(bytes) {
  const bad = (holds, found) => expect(holds, "bad-envelope", found);
  const covered = bytes.subarray(0, ENVELOPE.length).equals(ENVELOPE);
  if (!covered) return { envelope: null, message: bytes };
  const start = ENVELOPE.length + 4;
  bad(bytes.length >= start, "cut");
  const end = start + bytes.readUInt32LE(ENVELOPE.length);
  bad(end - start <= 1 << 20 && end <= bytes.length, "longer than the letter");
  const envelope = parsed(bytes.subarray(start, end), "bad-envelope");
  const names = canonical(Object.keys(FITS).sort());
  bad(isObject(envelope) && canonical(Object.keys(envelope)) === names, "other fields");
  for (const [name, fits] of Object.entries(FITS)) {
    bad(Array.isArray(envelope[name]) && envelope[name].length <= 64, `${name} that are no list`);
    bad(envelope[name].every(fits), name);
  }
  return { envelope, message: bytes.subarray(end) };
}

// 9. Hand-over.

export function proofFile(bytes, leaf, rules) {
  const bad = (holds, found) => expect(holds, "bad-proof-file", found);
  const text = utf8(bytes, "bad-proof-file");
  const split = text.indexOf("\n\n");
  const lines = text.slice(0, Math.max(split, 0)).split("\n");
  const version = /^c2sp\.org\/tlog-proof@v([1-9]\d{0,3})$/.exec(text.split("\n", 1)[0]);
  expect(version === null || version[1] === "1", "newer-version", text.split("\n", 1)[0]);
  bad(version !== null && split >= 0, "another first line");
  lines.shift();
  if (lines[0]?.startsWith("extra ")) {
    bad(unbase64(lines.shift().slice(6), "bad-proof-file").length > 0, "empty extra data");
  }
  bad(lines[0]?.startsWith("index "), "no index");
  const index = decimal(lines.shift().slice(6), "bad-proof-file");
  bad(lines.length <= 63, `${lines.length} digests`);
  const proof = lines.map((one) => unbase64(one, "bad-proof-file", 32));
  const { head, cosigned } = witnessed(rules, note(Buffer.from(text.slice(split + 2))));
  verifyInclusion(index, head.size, leafHash(leaf), proof, head.root);
  return { index, size: head.size, cosigned };
}

export function layout(size) {
  const paths = [];
  const level = (name, count) => {
    for (let at = 0; at < Math.ceil(count / 256); at += 1) {
      const width = Math.min(256, count - at * 256);
      const digits = String(at).padStart(Math.ceil(String(at).length / 3) * 3, "0");
      const parts = digits.match(/\d{3}/g);
      const number = parts.map((it, n) => (n + 1 < parts.length ? `x${it}` : it)).join("/");
      const path = `tile/${name}/${number}${width < 256 ? `.p/${width}` : ""}`;
      paths.push({ path, name, first: at * 256, width });
    }
  };
  level("entries", size);
  let count = size;
  for (let name = 0; count > 0; name += 1, count = Math.floor(count / 256)) level(name, count);
  return paths;
}

function bundle(bytes, width) {
  const leaves = [];
  let at = 0;
  for (; leaves.length < width; at += 2 + leaves.at(-1).length) {
    expect(at + 2 <= bytes.length, "bad-bundle", "a length is cut");
    const end = at + 2 + bytes.readUInt16BE(at);
    expect(end <= bytes.length, "bad-bundle", "an entry is cut");
    leaves.push(bytes.subarray(at + 2, end));
  }
  expect(at === bytes.length, "bad-bundle", "bytes are left over");
  return leaves;
}

// `read` gives the bytes at a path, or undefined; `believed` says who signed, first of all.
export function tiles(read, believed) {
  const file = (path) => read(path) ?? refuse("missing-file", path);
  const signed = note(file("checkpoint"));
  const head = checkpoint(signed.text);
  const cosigned = believed(signed);
  const paths = layout(Number(head.size));
  const leaves = paths
    .filter(({ name }) => name === "entries")
    .flatMap(({ path, width }) => bundle(file(path), width));
  let level = leaves.map(leafHash);
  expect(root(level).equals(head.root), "other-entries", `other entries than ${head.size} signed`);
  for (let name = 0; level.length > 0; name += 1) {
    for (const { path, first, width } of paths.filter((one) => one.name === name)) {
      const same = file(path).equals(Buffer.concat(level.slice(first, first + width)));
      expect(same, "other-tile", path);
    }
    for (let height = 0; height < 8; height += 1)
      level = joined(level.slice(0, level.length - (level.length % 2)));
  }
  const entries = leaves.map(header);
  checkPlaces(entries);
  return { head, entries, cosigned };
}
