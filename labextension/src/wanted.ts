/** What a connection brings, and whether that is enough. */

const NAMED = 100; // runs that a connection names; more of them, and it takes all

/** What the server takes for one; a notebook may hold anything. */
const RUN_ID = /^[a-z0-9][a-z0-9-]{0,79}$/;

type Ids = ReadonlySet<string> | null;

/** `runs`, and batches and log lines of `detail`; null is all of them. */
export interface IWanted {
  runs: Ids;
  detail: Ids;
}

/** What those who follow these runs want; null among them: somebody follows all. */
export function wantedBy(runIds: Iterable<string | null>): IWanted {
  const all = [...runIds];
  const ids = named(all.map(id => id ?? ''));
  return { runs: all.includes(null) ? null : ids, detail: ids };
}

/** Enough for each of them. */
export function together(wishes: readonly IWanted[]): IWanted {
  const union = (sets: Ids[]): Ids => (sets.includes(null) ? null : named(sets.flatMap(set => [...(set ?? [])])));
  return { runs: union(wishes.map(wish => wish.runs)), detail: union(wishes.map(wish => wish.detail)) };
}

export function covers(has: IWanted, wanted: IWanted): boolean {
  const holds = (ours: Ids, theirs: Ids) => ours === null || (theirs !== null && [...theirs].every(id => ours.has(id)));
  return holds(has.runs, wanted.runs) && holds(has.detail, wanted.detail);
}

export function queryOf(wanted: IWanted): string {
  const [name, ids] = wanted.runs ? ['runs', wanted.runs] : ['detail', wanted.detail]; // of named runs it brings all
  return ids ? `?${name}=${[...ids].map(encodeURIComponent).join(',')}` : '';
}

/** null (all) where they are too many for a URL. */
function named(runIds: readonly string[]): Ids {
  const ids = new Set(runIds.filter(id => RUN_ID.test(id)));
  return ids.size > NAMED ? null : ids;
}
