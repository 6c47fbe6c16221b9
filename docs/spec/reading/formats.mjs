// What a log is written in: spellings, entries, the tree, keys, signed notes.
//
// Bytes go in; what they say comes out, or `Refused` with a reason of docs/spec/log.md.

import { createHash, createPrivateKey, createPublicKey, verify as ed25519 } from "node:crypto";

export const CANNOT_TELL = new Set(["newer-version", "unknown-algorithm"]);

export class Refused extends Error {
  constructor(reason, found) {
    super(`${reason}: ${found}`);
    this.reason = reason;
  }
}

export const refuse = (reason, found) => {
  throw new Refused(reason, found);
};
export const expect = (holds, reason, found) => holds || refuse(reason, found);

// 1. Spellings.

export const MOST = 2n ** 63n - 1n;
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
export const sha256 = (...parts) =>
  parts.reduce((all, part) => all.update(part), createHash("sha256")).digest();
export const hex = (bytes) => bytes.toString("hex");
export const unhex = (text) => Buffer.from(text, "hex");

export function utf8(bytes, reason) {
  try {
    return decoder.decode(bytes);
  } catch {
    return refuse(reason, "bytes that are not UTF-8");
  }
}

export function unbase64(text, reason, length = null) {
  const bytes = Buffer.from(text, "base64");
  expect(bytes.toString("base64") === text, reason, "no base64 in its one spelling");
  const fits = length === null || bytes.length === length;
  expect(fits, reason, `${bytes.length} bytes, not ${length}`);
  return bytes;
}

export function decimal(text, reason) {
  const plain = /^(0|[1-9][0-9]{0,18})$/.test(text) && BigInt(text) <= MOST;
  expect(plain, reason, `no decimal: ${text}`);
  return BigInt(text);
}

export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object") return scalar(value);
  const pairs = Object.keys(value).sort().map((key) => `${scalar(key)}:${canonical(value[key])}`);
  return `{${pairs.join(",")}}`;
}

function scalar(value) {
  if (typeof value === "string")
    expect(value.isWellFormed(), "not-canonical", "half a surrogate pair");
  if (Number.isInteger(value) && Math.abs(value) < 1e21) // from there on spelt with an exponent
    expect(Number.isSafeInteger(value), "not-canonical", "an integer beyond 2^53 - 1");
  return JSON.stringify(value);
}

export function parsed(bytes, reason = "not-canonical") {
  const text = utf8(bytes, reason);
  let value, spelt;
  try {
    value = JSON.parse(text);
    spelt = canonical(value);
  } catch (error) {
    refuse(reason, error.message);
  }
  expect(spelt === text, reason, "another spelling than the canonical one");
  return value;
}

// 2. Entries.

const NEEDED = ["actor", "body", "refs", "seq", "ts", "type", "v"];
const OPTIONAL = ["key", "run"];
const TIME =
  /^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?Z$/;
export const isObject = (value) =>
  value !== null && typeof value === "object" && !Array.isArray(value);

export function header(leaf) {
  const bad = (holds, found) => expect(holds, "bad-header", found);
  bad(leaf.length <= 65535, `${leaf.length} bytes`);
  const fields = parsed(leaf);
  bad(isObject(fields), "no object");
  expect(!(Number.isInteger(fields.v) && fields.v > 1), "newer-version", `version ${fields.v}`);
  bad(fields.v === 1, `version ${fields.v}`);
  for (const name of NEEDED) bad(Object.hasOwn(fields, name), `no ${name}`);
  for (const [name, value] of Object.entries(fields)) {
    bad(NEEDED.includes(name) || OPTIONAL.includes(name), `field ${name}`);
    const text = ["v", "seq", "refs"].includes(name) || typeof value === "string";
    bad(text, `${name} that is no text`);
  }
  bad(Number.isSafeInteger(fields.seq) && fields.seq >= 0, `sequence ${fields.seq}`);
  bad(fields.type !== "" && fields.actor !== "", "an empty name");
  bad(TIME.test(fields.ts), `time ${fields.ts}`);
  unbase64(fields.body, "bad-header", 32);
  bad(Array.isArray(fields.refs), "references that are no list");
  for (const one of fields.refs)
    bad(typeof one === "string" && /^[^]+#(0|[1-9]\d{0,15})$/.test(one), `reference ${one}`);
  return fields;
}

export function opened(leaf, body = null, salt = null) {
  const fields = header(leaf);
  expect((body === null) === (salt === null), "half-erased", "a body or a salt alone");
  if (body === null) return { header: fields, body: null };
  expect(salt.length === 32, "bad-salt", `${salt.length} bytes`);
  const bound = sha256(salt, body).equals(Buffer.from(fields.body, "base64"));
  expect(bound, "bad-commitment", `entry ${fields.seq} commits to another body`);
  const value = parsed(body);
  expect(isObject(value), "bad-body", "a body that is no object");
  return { header: fields, body: value };
}

// In a log every entry says its own place, has a key of its own, and is by the party of the first.
export function checkPlaces(headers) {
  const keys = new Set();
  headers.forEach(({ seq, key: name, actor }, at) => {
    expect(seq === at, "wrong-place", `entry ${at} says ${seq}`);
    expect(!keys.has(name), "wrong-place", `entry ${at} has the key of an earlier one`);
    expect(actor === headers[0].actor, "wrong-place", `entry ${at} is by ${actor}`);
    keys.add(name);
  });
}

// 3. The tree.

const ZERO = Buffer.from([0]);
const ONE = Buffer.from([1]);
export const leafHash = (leaf) => sha256(ZERO, leaf);
const nodeHash = (left, right) => sha256(ONE, left, right);

// Pairs joined; an odd last one is carried up, which is the RFC's split seen from below.
export function joined(level) {
  const above = [];
  for (let at = 0; at < level.length; at += 2)
    above.push(at + 1 < level.length ? nodeHash(level[at], level[at + 1]) : level[at]);
  return above;
}

export function root(hashes) {
  let level = hashes;
  while (level.length > 1) level = joined(level);
  return level.length ? level[0] : sha256();
}

// RFC 9162, 2.1.3.2 and 2.1.4.2: from the bottom up; `fn` and `sn` are the RFC's names.
function climbed(index, size, proof, step) {
  let [fn, sn] = [index, size - 1n];
  for (const digest of proof) {
    expect(sn !== 0n, "bad-proof-length", "digests too many");
    const fromLeft = (fn & 1n) === 1n || fn === sn;
    step(digest, fromLeft);
    while (fromLeft && (fn & 1n) === 0n && fn !== 0n) [fn, sn] = [fn >> 1n, sn >> 1n];
    [fn, sn] = [fn >> 1n, sn >> 1n];
  }
  expect(sn === 0n, "bad-proof-length", "digests too few");
}

export function verifyInclusion(index, size, leaf, proof, expected) {
  expect(index >= 0n && index < size, "bad-range", `leaf ${index} of ${size}`);
  let found = leaf;
  climbed(index, size, proof, (digest, fromLeft) => {
    found = fromLeft ? nodeHash(digest, found) : nodeHash(found, digest);
  });
  expect(found.equals(expected), "wrong-root", hex(found));
}

export function verifyConsistency(old, size, proof, oldRoot, newRoot) {
  expect(old > 0n && old <= size, "bad-range", `${old} before ${size}`);
  if (old === size) {
    expect(proof.length === 0, "bad-proof-length", "a proof where none is needed");
    return expect(oldRoot.equals(newRoot), "wrong-root", "one size, two roots");
  }
  const path = (old & (old - 1n)) === 0n ? [oldRoot, ...proof] : proof;
  expect(path.length > 0, "bad-proof-length", "no digest");
  let [fn, sn] = [old - 1n, size - 1n];
  while (fn & 1n) [fn, sn] = [fn >> 1n, sn >> 1n];
  let [before, after] = [path[0], path[0]];
  climbed(fn, sn + 1n, path.slice(1), (digest, fromLeft) => {
    if (fromLeft) before = nodeHash(digest, before);
    after = fromLeft ? nodeHash(digest, after) : nodeHash(after, digest);
  });
  expect(before.equals(oldRoot) && after.equals(newRoot), "wrong-root", "another root");
}

// 4. Keys, signed notes, checkpoints.

export const LOG = 1;
export const COSIGNATURE = 4;
export const COSIGNATURE_MLDSA44 = 6;
const PUBLIC_BYTES = { 1: 32, 4: 32, 6: 1312 };
const SPKI = unhex("302a300506032b6570032100"); // RFC 8410: what stands before 32 bytes
const PKCS8 = unhex("302e020100300506032b657004220420");
const CONTROL = /[\0-\x1f]/;
const isName = (name) => name !== "" && !/[\p{White_Space}+\0-\x1f]/u.test(name);

export function key(vkey) {
  const bad = (holds, found) => expect(holds, "bad-key", found);
  const [name, id, ...rest] = vkey.split("+");
  bad(rest.length > 0 && isName(name), "no name+id+key");
  const content = unbase64(rest.join("+"), "bad-key");
  const [algorithm, bytes] = [content[0], content.subarray(1)];
  bad(PUBLIC_BYTES[algorithm] === bytes.length, `algorithm ${algorithm}, ${bytes.length} bytes`);
  const made = hex(sha256(Buffer.from(`${name}\n`), content).subarray(0, 4));
  bad(id === made, `id ${id}, not ${made}`);
  return { name, id, algorithm, bytes, text: `${name}+${id}` };
}

// The public key of 32 secret bytes.
export function publicOf(seed) {
  const pkcs8 = Buffer.concat([PKCS8, seed]);
  const made = createPublicKey(createPrivateKey({ key: pkcs8, format: "der", type: "pkcs8" }));
  return made.export({ format: "der", type: "spki" }).subarray(SPKI.length);
}

export function checkpoint(text) {
  const bad = (holds, found) => expect(holds, "bad-checkpoint", found);
  bad(text.endsWith("\n"), "no newline at the end");
  const [origin, size, digest, ...more] = text.slice(0, -1).split("\n");
  bad(digest !== undefined, "fewer than three lines");
  for (const line of [origin, ...more]) bad(line !== "" && !CONTROL.test(line), "an empty line");
  const head = {
    origin,
    size: decimal(size, "bad-checkpoint"),
    root: unbase64(digest, "bad-checkpoint", 32),
  };
  bad(head.size !== 0n || head.root.equals(sha256()), "no entries, and a root");
  return head;
}

export function signedBytes(algorithm, name, text, time) {
  if (algorithm === LOG) return Buffer.from(text);
  const { origin, size, root: digest } = checkpoint(text);
  if (algorithm === COSIGNATURE) return Buffer.from(`cosignature/v1\ntime ${time}\n${text}`);
  const uint64 = (number) => unhex(BigInt(number).toString(16).padStart(16, "0"));
  const opaque = (it) => Buffer.concat([Buffer.from([Buffer.byteLength(it)]), Buffer.from(it)]);
  const start = [Buffer.from("subtree/v1\n\0"), opaque(name), uint64(time), opaque(origin)];
  return Buffer.concat([...start, uint64(0), uint64(size), digest]);
}

function verifyLine(known, text, content) {
  expect(known.algorithm !== COSIGNATURE_MLDSA44, "unknown-algorithm", "ML-DSA-44, not read here");
  const stamp = known.algorithm === LOG ? 0 : 8;
  expect(content.length === stamp + 64, "bad-signature", `${content.length} bytes`);
  const time = stamp ? content.readBigUInt64BE() : null;
  expect(time === null || time <= MOST, "bad-signature", "a time beyond 2^63 - 1");
  const spki = Buffer.concat([SPKI, known.bytes]);
  const publicKey = createPublicKey({ key: spki, format: "der", type: "spki" });
  const message = signedBytes(known.algorithm, known.name, text, time);
  const holds = ed25519(null, message, publicKey, content.subarray(stamp));
  expect(holds, "bad-signature", `not made by ${known.text}`);
  return time === null ? null : Number(time);
}

export function line(text) {
  const found = /^\u2014 ([^ ]+) ([^ ]+)$/.exec(text);
  expect(found && isName(found[1]), "bad-note", "no signature line");
  const content = unbase64(found[2], "bad-note");
  expect(content.length > 4, "bad-note", "a signature without bytes");
  return { name: found[1], id: hex(content.subarray(0, 4)), content: content.subarray(4) };
}

export function note(bytes) {
  const bad = (holds, found) => expect(holds, "bad-note", found);
  bad(bytes.length <= 1_000_000, "too long");
  const whole = utf8(bytes, "bad-note");
  const split = whole.lastIndexOf("\n\n");
  bad(split >= 0 && whole.length > split + 2 && whole.endsWith("\n"), "no lines behind the text");
  const text = whole.slice(0, split + 1);
  bad(!CONTROL.test(text.replaceAll("\n", "")), "a control character");
  const lines = whole.slice(split + 2, -1).split("\n").map(line);
  bad(lines.length <= 100, `${lines.length} signatures`);
  return { text, lines };
}

export function signers(read, known) {
  const found = new Map();
  for (const { name, id, content } of read.lines) {
    const signer = known.find((one) => one.name === name && one.id === id);
    if (signer === undefined) continue;
    const time = verifyLine(signer, read.text, content);
    found.set(signer, Math.max(time, found.get(signer) ?? 0) || null);
  }
  expect(found.size > 0, "unsigned", "no signature by a known key");
  return found;
}
