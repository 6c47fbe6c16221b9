// Reads what docs/spec/log.md describes, with the standard library of node alone: a second, short
// implementation. It makes no connection and writes nothing.
//
//   node docs/spec/reader.mjs vectors DIR
//   node docs/spec/reader.mjs tiles DIR... --policy FILE   or   --key VKEY
//   node docs/spec/reader.mjs proof FILE LEAF --policy FILE
//
// Exit codes: 0 as it should be, 1 refuted, 2 used wrongly, 3 cannot tell. --json prints JSON.

import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";

import { appended, charged, doubleEntry, heard, keptHeads, wholeLog } from "./reading/books.mjs";
import {
  CANNOT_TELL,
  Refused,
  canonical,
  checkpoint,
  hex,
  key,
  leafHash,
  line,
  note,
  opened,
  parsed,
  publicOf,
  root,
  sha256,
  signedBytes,
  signers,
  unhex,
  utf8,
  verifyConsistency,
  verifyInclusion,
} from "./reading/formats.mjs";
import {
  checkRoles,
  considered,
  defaultThreshold,
  layout,
  letter,
  policy,
  proofFile,
  request,
  tiles,
  witnessed,
} from "./reading/handover.mjs";

const bytes = (text) => (text === undefined ? null : Buffer.from(text));
const mapped = (object, change) =>
  Object.fromEntries(Object.entries(object).map(([name, value]) => [name, change(value)]));
const plainHead = ({ size, root: digest }) => ({ size: Number(size), root_hex: hex(digest) });
const plainProof = ({ index, size, cosigned }) =>
  ({ index: Number(index), size: Number(size), cosigned });

// What each kind of vector asks: the result is compared with what the vector expects.
const CHECKS = {
  keys({ vkey, seed_is_sha256_of: sentence }) {
    const { name, algorithm, id, bytes: publicKey } = key(vkey);
    const same = publicOf(sha256(Buffer.from(sentence))).equals(publicKey);
    return same ? { name, algorithm, id_hex: id } : "another public key";
  },
  canonical({ text, hex: spelt }) {
    const content = spelt === undefined ? bytes(text) : unhex(spelt);
    parsed(content);
    return { sha256: hex(sha256(content)) };
  },
  entries({ leaf, body, salt_hex: salt }) {
    const read = opened(bytes(leaf), bytes(body), salt === undefined ? null : unhex(salt));
    return { ...read, leaf_hash_hex: hex(leafHash(bytes(leaf))) };
  },
  tree(given) {
    if (given.root_of_leaves_hex)
      return { root_hex: hex(root(given.root_of_leaves_hex.map((leaf) => leafHash(unhex(leaf))))) };
    const { inclusion_of: index, consistency_from: old } = given;
    const [size, proof] = [BigInt(given.size), given.proof_hex.map(unhex)];
    const digest = (name) => unhex(given[name]);
    if (old === undefined)
      verifyInclusion(BigInt(index), size, digest("leaf_hash_hex"), proof, digest("root_hex"));
    else
      verifyConsistency(BigInt(old), size, proof, digest("old_root_hex"), digest("root_hex"));
    return {};
  },
  notes({ note: text, vkeys }) {
    const read = note(bytes(text));
    const head = checkpoint(read.text);
    const found = [...signers(read, vkeys.map(key))].map(([{ text: name }, time]) => [name, time]);
    return { origin: head.origin, ...plainHead(head), signers: Object.fromEntries(found) };
  },
  policies({ cosigners, threshold: asked, policy: text, note: signed, not_before, not_after }) {
    if (cosigners !== undefined) {
      const threshold = asked ?? defaultThreshold(cosigners);
      const liars = Math.max(-1, 2 * threshold - cosigners - 1);
      return { threshold, liars, absent: cosigners - threshold };
    }
    const rules = policy(bytes(text));
    return { cosigned: witnessed(rules, note(bytes(signed)), not_before, not_after).cosigned };
  },
  cosigning(given) {
    if (given.text !== undefined) {
      const { algorithm, name, text, time } = given;
      return { message_hex: hex(signedBytes(algorithm, name, text, time)) };
    }
    const [cosigner, logs] = [key(given.cosigner), mapped(given.logs, (it) => it.map(key))];
    checkRoles(Object.values(logs).flat(), [cosigner]);
    const seen = mapped(given.seen, (it) => ({ size: BigInt(it.size), root: unhex(it.root_hex) }));
    const asked = request(bytes(given.request));
    const head = considered(asked, logs, seen);
    const mine = line(given.answer.slice(0, -1));
    const time = [...signers({ text: asked.read.text, lines: [mine] }, [cosigner]).values()][0];
    return { seen: { [head.origin]: plainHead(head) }, time };
  },
  proofs({ file, leaf, policy: text }) {
    return plainProof(proofFile(bytes(file), bytes(leaf), policy(bytes(text))));
  },
  tiles({ size, files_hex: files, vkeys }) {
    if (size !== undefined) {
      const paths = layout(size).map(({ path }) => path);
      return { files: paths.length, some: paths.length > 8 ? ends(paths) : paths };
    }
    const read = (path) => (Object.hasOwn(files, path) ? unhex(files[path]) : undefined);
    const { head, entries } = tiles(read, (signed) => signers(signed, vkeys.map(key)));
    return { ...plainHead(head), types: entries.map(({ type }) => type) };
  },
  logs({ log }, logs) {
    const { key: known, hashes, entries } = wholeLog(logs[log]);
    const types = entries.map(({ header }) => header.type);
    const closed = entries.filter(({ body }) => body === null).length;
    const head = { size: hashes.length, root: root(hashes) };
    return { origin: known.name, ...plainHead(head), types, closed };
  },
  books(given, logs) {
    const whole = mapped(given, (name) => wholeLog(logs[name]));
    return { ...doubleEntry(whole), heads: keptHeads(whole) };
  },
  ledger({ appends, population }) {
    const { indices, entries } = appended(appends);
    return { indices, charged: charged(entries, population) };
  },
  guard(given, logs) {
    const cosigners = Object.entries(given.cosigners).map(([party, vkeys]) =>
      ({ party, keys: vkeys.map(key) }));
    const terms = { now: given.now, threshold: given.threshold, mostAge: given.most_age_s };
    return { spoke: heard(wholeLog(logs[given.log]), cosigners, given.notes, terms) };
  },
  letters({ letter_hex: content }) {
    const { envelope, message } = letter(unhex(content));
    return { envelope, message_hex: hex(message) };
  },
};

const ends = (paths) => [...paths.slice(0, 2), ...paths.slice(-4)];

function judged(check, given, logs) {
  try {
    return { found: check(given, logs) };
  } catch (error) {
    if (error instanceof Refused) return { refused: error.reason, why: error.message };
    throw error;
  }
}

const unpooled = ({ logs, entries, checkpoints }) =>
  mapped(logs, (log) => ({
    vkey: log.vkey,
    entries: log.entries.map((place) => entries[place]),
    checkpoints: log.checkpoints.map((place) => checkpoints[place]),
  }));

function* vectors(folder) {
  const files = readdirSync(folder).filter((name) => name.endsWith(".json")).sort();
  if (files.length === 0) throw new Error(`found no vectors in ${folder}`);
  const read = files.map((file) => JSON.parse(readFileSync(join(folder, file), "utf8")));
  const logs = unpooled(read.find(({ kind }) => kind === "logs"));
  for (const { format, kind, cases } of read) {
    if (format !== "fedkd-log-vectors/1") throw new Refused("newer-version", format);
    for (const { id, like, given: own, ...said } of cases) {
      const given = like ? { ...cases.find((one) => one.id === like).given, ...own } : own;
      const { found, refused } = judged(CHECKS[kind], given, logs);
      const expected = said.refuse ?? said.expect;
      const asSaid = Object.hasOwn(said, "refuse")
        ? refused === said.refuse
        : refused === undefined && canonical(found) === canonical(said.expect);
      yield { kind, id, found: refused ?? found, expected, as_said: asSaid };
    }
  }
}

// Whom to believe: a policy of the reader's own, or one key, which shows no more than consistency.
function believing({ policy: file, key: vkey }) {
  if (file !== undefined) {
    const rules = policy(readFileSync(file));
    return (signed) => witnessed(rules, signed).cosigned;
  }
  const known = key(vkey);
  return (signed) => (signers(signed, [known]), {});
}

function folder(path, believed) {
  const read = (name) => {
    try {
      return readFileSync(join(path, name));
    } catch {
      return undefined;
    }
  };
  const { head, entries, cosigned } = tiles(read, believed);
  return { origin: head.origin, ...plainHead(head), entries: entries.length, cosigned };
}

function* run(command, paths, options) {
  if (command === "vectors" && paths.length === 1) {
    yield* vectors(paths[0]);
  } else if (command === "tiles" && paths.length > 0 && (options.policy ?? options.key)) {
    const believed = believing(options);
    for (const path of paths) yield { path, ...judged(() => folder(path, believed)) };
  } else if (command === "proof" && paths.length === 2 && options.policy) {
    const [file, leaf] = paths.map((path) => readFileSync(path));
    const rules = policy(readFileSync(options.policy));
    yield { path: paths[0], ...judged(() => plainProof(proofFile(file, leaf, rules))) };
  } else {
    throw new Error("expected vectors DIR, or tiles DIR... or proof FILE LEAF with --policy FILE");
  }
}

function main() {
  const names = { policy: { type: "string" }, key: { type: "string" }, json: { type: "boolean" } };
  let results;
  try {
    const { values, positionals } = parseArgs({ options: names, allowPositionals: true });
    results = [...run(positionals[0], positionals.slice(1), values)];
    if (values.json) console.log(JSON.stringify(results));
    else for (const it of results) console.log(JSON.stringify(it));
  } catch (error) {
    console.error(error.message);
    return error instanceof Refused ? (CANNOT_TELL.has(error.reason) ? 3 : 1) : 2;
  }
  const refuted = (it) => it.as_said === false || (it.refused && !CANNOT_TELL.has(it.refused));
  if (results.some(refuted)) return 1;
  return results.some((it) => it.refused) ? 3 : 0;
}

process.exitCode = main();
