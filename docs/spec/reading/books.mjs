// What logs say of each other and of themselves: an old copy, two books, the ledger.

import {
  Refused,
  canonical,
  checkPlaces,
  checkpoint,
  expect,
  key,
  leafHash,
  note,
  opened,
  refuse,
  root,
  signers,
  unhex,
} from "./formats.mjs";

// 5. A whole log: entries, the tree over them, a signed checkpoint for each.

export function wholeLog({ vkey, checkpoints, entries: rows }) {
  const known = key(vkey);
  const hashes = rows.map(({ leaf }) => leafHash(Buffer.from(leaf)));
  const few = checkpoints.length === rows.length;
  expect(few, "other-checkpoint", `${checkpoints.length} for ${rows.length} entries`);
  checkpoints.forEach((text, at) => {
    const read = note(Buffer.from(text));
    const head = checkpoint(read.text);
    expect(head.origin === known.name, "other-log", head.origin);
    expect(head.size === BigInt(at + 1), "other-checkpoint", `size ${head.size} as number ${at}`);
    const same = root(hashes.slice(0, at + 1)).equals(head.root);
    expect(same, "other-entries", `entry ${at} is not the one that was signed`);
    signers(read, [known]);
  });
  const entries = rows.map(({ leaf, body, salt_hex: salt }) =>
    opened(Buffer.from(leaf), body ? Buffer.from(body) : null, salt ? unhex(salt) : null));
  checkPlaces(entries.map(({ header }) => header));
  return { key: known, hashes, entries };
}

// 8. An old copy of one's own log.

const MOST_SKEW = 300;

export function heard(own, cosigners, notes, { now, threshold, mostAge }) {
  const spoke = {};
  for (const { head, times } of notes.flatMap((text) => said(own, cosigners, text))) {
    const size = Number(head.size);
    const here = size <= own.hashes.length && root(own.hashes.slice(0, size)).equals(head.root);
    expect(here, "rolled_back", `${size} entries of another history were cosigned`);
    for (const [party, time] of times)
      if (time <= now + MOST_SKEW) spoke[party] = Math.max(time, spoke[party] ?? 0);
  }
  const fresh = Object.values(spoke).filter((time) => time >= now - mostAge);
  expect(fresh.length >= threshold, "not_fresh", `${fresh.length} of ${threshold}`);
  return spoke;
}

// What cosigners say in one note; nothing, if it is not of this log or holds a forged line.
function said(own, cosigners, text) {
  try {
    const read = note(Buffer.from(text));
    const head = checkpoint(read.text);
    expect(head.origin === own.key.name, "other-log", head.origin);
    signers(read, [own.key]);
    const by = signers(read, cosigners.flatMap(({ keys }) => keys));
    const times = cosigners.flatMap(({ party, keys }) =>
      keys.filter((one) => by.has(one)).map((one) => [party, by.get(one)]));
    return [{ head, times }];
  } catch (error) {
    if (error instanceof Refused) return [];
    throw error;
  }
}

// 10. Two books.

const told = (log, type) =>
  log.entries.filter(({ header, body }) => header.type === type && body !== null);
const where = (site, { run, round }) => canonical([site, run, round]);

export function doubleEntry({ server, ...sites }) {
  const found = { matched: 0, closed: 0, erased: 0, absent: new Set() };
  const released = new Map();
  for (const [site, log] of Object.entries(sites))
    for (const { header, body } of told(log, "release.outputs")) {
      const place = where(site, body);
      const answer = { digest: body.digest, at: header.seq };
      released.set(place, [...(released.get(place) ?? []), answer]);
    }
  const admitted = new Map();
  for (const { body } of told(server, "answers.admitted")) {
    for (const [site, digest] of Object.entries(body.answers)) {
      const place = where(site, body);
      admitted.set(place, digest);
      if (sites[site] === undefined) found.absent.add(site);
      else found[outcome(site, sites[site], body, released.get(place))] += 1;
    }
    for (const site of Object.keys(sites))
      for (const { digest } of released.get(where(site, body)) ?? []) {
        const settled = body.answers[site] === digest || Object.hasOwn(body.left_out, site);
        expect(settled, "one-side-missing", `${site} released what the server does not explain`);
      }
  }
  for (const { body } of told(server, "aggregate.computed"))
    for (const [site, digest] of Object.entries(body.inputs)) {
      const place = where(site, body);
      const gone = admitted.has(place) ? null : closed(server, "answers.admitted", body.run);
      if (gone) found[gone] += 1;
      else expect(admitted.get(place) === digest, "not-admitted", place);
    }
  return { ...found, absent: [...found.absent].sort() };
}

// How an answer that the server admitted stands in the site's log.
function outcome(site, log, { run, round, answers, checkpoints }, releases = []) {
  const [digest, head] = [answers[site], checkpoints?.[site]];
  const same = releases.find((one) => one.digest === digest);
  if (same !== undefined) {
    expect(!head || same.at < head.size, "after-its-head", `entry ${same.at} of ${head?.size}`);
    return "matched";
  }
  const gone = closed(log, "release.outputs", run);
  if (gone) return gone;
  expect(releases.length > 0, "one-side-missing", `round ${round}: nothing was released`);
  return refuse("sides-differ", `round ${round}: another answer was released`);
}

// Whether a run's entries of one type are closed: erased, where the log says so later on.
function closed(log, type, run) {
  const last = log.entries.findLastIndex(({ header, body }) =>
    body === null && header.type === type && header.run === run);
  if (last < 0) return null;
  const later = log.entries.slice(last).map(({ header }) => header.type);
  return later.includes("retention.applied") ? "erased" : "closed";
}

// How many heads of each other's logs parties keep, once all of them are of the same history.
export function keptHeads(logs) {
  const named = new Map(Object.values(logs).map((log) => [log.key.name, log]));
  const heads = [];
  for (const log of named.values())
    for (const { body } of told(log, "checkpoint.witnessed"))
      heads.push(...body.heads.map((head) => [named.get(head.origin), head]));
  for (const { body } of told(logs.server, "answers.admitted"))
    for (const site of Object.keys(body.checkpoints ?? {}))
      heads.push([logs[site], body.checkpoints[site]]);
  const runs = new Set(logs.server.entries.map(({ header }) => header.run));
  for (const { body } of Object.values(logs).flatMap((log) => told(log, "release.outputs")))
    if (body.asked_at && runs.has(body.run)) heads.push([logs.server, body.asked_at]);
  const here = heads.filter(([log]) => log !== undefined);
  for (const [log, { size, root: digest }] of here) {
    expect(size <= log.hashes.length, "shorter-than-kept", `${log.hashes.length} of ${size}`);
    const same = root(log.hashes.slice(0, size)).equals(unhex(digest));
    expect(same, "other-history", `another root of size ${size}`);
  }
  return here.length;
}

// 11. The ledger.

export function appended(appends) {
  const byKey = new Map();
  const indices = appends.map(([name, type, body]) => {
    const spelt = canonical([type, body]);
    if (!byKey.has(name)) byKey.set(name, { index: byKey.size, spelt, type, body });
    expect(byKey.get(name).spelt === spelt, "contradiction", `another entry under ${name}`);
    return byKey.get(name).index;
  });
  return { indices, entries: [...byKey.values()] };
}

export const charged = (entries, population) =>
  entries
    .filter(({ type, body }) => type === "budget.charged" && body.population === population)
    .map(({ body }) => body.cost);
