/** Which runs a list shows, in which order and under which headings: pure functions of runs and a query. */
import { goal } from './format';
import type { IRun } from './run';
import { trans } from './words';

export const SORTS = ['newest', 'name', 'state', 'progress', 'metric', 'left'] as const;
export type Sort = (typeof SORTS)[number];

export interface IQuery {
  text: string;
  /** Only those of this owner; empty means everybody's. */
  owner: string;
  sort: Sort;
  /** The metric shown and sorted by; empty: the one that each run is judged by. */
  metric: string;
  hidden: ReadonlySet<string>;
}

export interface IGroup {
  title: string;
  runs: IRun[];
}

const DAY = 86_400_000;
const WORD = /(-?)(?:([a-z]+):)?(?:"([^"]*)"?|(\S+))/gi;

interface ITerm {
  not: boolean;
  key: string;
  value: string;
}

/** `resnet state:running -notebook:"my draft.ipynb" label:team=vision`: all of them must hold; `,` between values means or. */
export function terms(text: string): ITerm[] {
  const found = [...text.toLowerCase().matchAll(WORD)];
  return found.map(([, not, key, quoted, word]) => ({ not: !!not, key: key ?? '', value: quoted ?? word ?? '' })).filter(t => t.value);
}

/** What the server, which looks for one word, is asked for: the longest one that must be there. */
export function wordFor(text: string): string {
  const wanted = terms(text).filter(term => !term.not && term.key !== 'state');
  return wanted.flatMap(term => term.value.split(',')).reduce((longest, value) => (value.length > longest.length ? value : longest), '');
}

const FIELDS = new Map<string, (run: IRun) => string[]>([
  ['state', run => [run.state]],
  ['name', run => [run.name]],
  ['id', run => [run.run_id]],
  ['notebook', run => [run.notebook]],
  ['owner', run => [run.owner]],
  ['worker', run => [run.worker, run.host]],
  ['model', run => [run.model]],
  ['label', run => labels(run)]
]);

function labels(run: IRun): string[] {
  return Object.entries(run.labels).flatMap(([key, value]) => [key, value, `${key}=${value}`]);
}

function holds(run: IRun, { key, value, not }: ITerm): boolean {
  const field = FIELDS.get(key);
  const texts = field ? field(run) : [run.run_id, run.name, run.notebook, run.owner, run.state, ...labels(run)];
  const wanted = field ? value.split(',').filter(Boolean) : [key ? `${key}:${value}` : value];
  return wanted.some(each => texts.some(text => text.toLowerCase().includes(each))) !== not;
}

/** Of the metrics of a run the one that it is judged by: `wanted` if it has that, else as the card's headline. */
export function scoreOf(run: IRun, wanted = ''): { name: string; value: number; epoch: number } | null {
  const best = run.tally?.best ?? {};
  const names = Object.keys(best);
  const name =
    names.find(each => each === wanted) ??
    names.find(each => each.startsWith('val_') && goal(each) === 'max') ??
    names.find(each => each === 'val_loss') ??
    names.find(each => goal(each) === 'max') ??
    names.find(each => each === 'loss') ??
    names[0];
  return name ? { name, value: best[name][0], epoch: best[name][1] } : null;
}

/** Finished epochs, those before the first one included. */
export function doneOf(run: IRun): number {
  return Math.max(run.epochs_done, run.initial_epoch, run.tally?.done ?? 0);
}

/** Share of the training that is done, 0..1. */
export function shareOf(run: IRun): number {
  const all = Math.max(1, run.epochs - run.initial_epoch);
  return run.state === 'SUCCEEDED' ? 1 : Math.min(1, Math.max(0, (doneOf(run) - run.initial_epoch) / all));
}

/** ms until its last epoch should be over; null where nothing can be said. */
export function leftOf(run: IRun, now: number): number | null {
  const seconds = run.tally?.seconds ?? 0;
  if (run.state !== 'RUNNING' || !seconds) {
    return null;
  }
  const underWay = Math.min(0.95, Math.max(0, now - (run.tally?.at_ms ?? now)) / (seconds * 1000));
  return Math.max(0, (run.epochs - doneOf(run) - underWay) * seconds * 1000);
}

/** Newest end or begin first: what a person has done last. */
const newest = (run: IRun) => run.submitted_ms;

type Order = (a: IRun, b: IRun) => number;

function orderOf(query: IQuery, now: number): Order {
  const text = (a: string, b: string) => a.localeCompare(b, undefined, { numeric: true });
  const far = Number.MAX_VALUE;
  const orders: Record<Sort, Order> = {
    newest: () => 0,
    name: (a, b) => text(a.name, b.name),
    state: (a, b) => Number(a.terminal) - Number(b.terminal) || text(a.state, b.state),
    progress: (a, b) => shareOf(b) - shareOf(a),
    metric: (a, b) => better(a, b, query.metric),
    left: (a, b) => (leftOf(a, now) ?? far) - (leftOf(b, now) ?? far)
  };
  return (a, b) => orders[query.sort](a, b) || newest(b) - newest(a) || text(a.run_id, b.run_id);
}

/** The better one first; runs without a number come last, metrics of different names one name behind the other. */
function better(a: IRun, b: IRun, metric: string): number {
  const [x, y] = [scoreOf(a, metric), scoreOf(b, metric)];
  if (!x || !y) {
    return Number(!x) - Number(!y);
  }
  const sign = goal(x.name) === 'max' ? -1 : 1;
  return x.name === y.name ? sign * (x.value - y.value) : x.name.localeCompare(y.name);
}

/** The runs that the query takes, in its order. */
export function chosen(runs: readonly IRun[], query: IQuery, now: number): IRun[] {
  const wanted = terms(query.text);
  const taken = runs.filter(
    run => !query.hidden.has(run.run_id) && (!query.owner || run.owner === query.owner) && wanted.every(term => holds(run, term))
  );
  return taken.sort(orderOf(query, now));
}

/** Under headings: what is going on, then by day. Sorted in another way, it is one list. */
export function grouped(runs: readonly IRun[], query: IQuery, now: number): IGroup[] {
  if (query.sort !== 'newest') {
    return runs.length ? [{ title: '', runs: [...runs] }] : [];
  }
  const midnight = new Date(now).setHours(0, 0, 0, 0);
  const titles = [activity(runs), trans.__('Today'), trans.__('Yesterday'), trans.__('Earlier')];
  const groups = titles.map((title): IGroup => ({ title, runs: [] }));
  for (const run of runs) {
    const at = run.ended_ms || run.submitted_ms;
    groups[!run.terminal ? 0 : at >= midnight ? 1 : at >= midnight - DAY ? 2 : 3].runs.push(run);
  }
  return groups.filter(group => group.runs.length > 0);
}

export const isQueued = (run: IRun) => !run.terminal && !run.attempt && run.state === 'QUEUED';

/** "Running 2 · queued 1" */
export function activity(runs: readonly IRun[]): string {
  const active = runs.filter(run => !run.terminal);
  const queued = active.filter(run => ['QUEUED', 'LOST', 'RETRYING'].includes(run.state)).length;
  const resting = active.filter(run => run.state === 'PAUSED').length;
  const running = active.length - queued - resting;
  const parts = [trans.__('Running %1', running)];
  if (queued) {
    parts.push(trans.__('queued %1', queued));
  }
  if (resting) {
    parts.push(trans.__('paused %1', resting));
  }
  return parts.join(' · ');
}
