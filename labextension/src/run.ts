/** A run as the server tells it: the card state of docs/architecture.md. Everything read here is untrusted. */
import { plain } from './format';
import { type IStart, type Json, type Metrics, isObject, metricsOf, numberOf } from './rows';

export interface IRunError {
  reason: string;
  error: string;
  message: string;
  traceback: string;
  attempt: number;
  worker: string;
}

/** `epoch` is 0-based; `step` counts batches done in it. */
export interface IPlace {
  epoch: number;
  step: number;
}

/** The newest change that the worker has applied, and where. */
export interface IApplied extends IPlace {
  settings: Json;
}

/** What a list shows of the history: how far it is, its last metrics, each one's best value with its 1-based epoch, seconds an epoch. */
export interface ITally {
  done: number;
  metrics: Metrics;
  best: Record<string, [number, number]>;
  seconds: number;
  at_ms: number;
}

/** The card state of docs/architecture.md. */
export interface IRun {
  run_id: string;
  short: string;
  name: string;
  owner: string;
  state: string;
  attempt: number;
  starts: IStart[];
  epochs: number;
  initial_epoch: number;
  epochs_done: number;
  model: string;
  worker: string;
  host: string;
  device: string;
  notebook: string;
  cell: string;
  labels: Record<string, string>;
  submitted_ms: number;
  started_ms: number;
  ended_ms: number;
  heartbeat_ms: number;
  queue: number;
  waiting: string;
  warning: string; // of the end that its age will bring
  error: IRunError | null;
  ended_by: string;
  wish: string;
  process: string; // of a cancelled run: "none", "gone" or "cut off"
  checkpoint: IPlace | null;
  applied: IApplied | null;
  retry_of: string;
  code: boolean; // a person wrote some of what it trains
  stopped_early: boolean;
  metrics: Metrics;
  files: string[];
  read_only: boolean;
  terminal: boolean;
  upto: number;
  tally: ITally | null; // null: the server has not read the rows yet, or it is the kernel that tells
}

export type Verb = 'stop' | 'pause' | 'resume' | 'cancel' | 'retry';

// Characters that are kept of somebody else's text: a name is read at a glance, a traceback is scrolled through.
const NAME = 200;
const SENTENCE = 4_000;
const TRACEBACK = 20_000;
const LIST = 500; // of starts, files, labels
const STATE = /^[A-Z]{1,20}$/;

const text = (value: unknown, limit = NAME): string => (typeof value === 'string' ? plain(value, limit) : '');

/** The short form of a run id that still says which run: "digits-3f2a9c01b7d4" → "digits-3f2a". */
export function shortId(runId: string): string {
  return runId.slice(0, runId.lastIndexOf('-') + 5);
}

export function runOf(value: unknown): IRun | null {
  if (!isObject(value) || typeof value.run_id !== 'string' || typeof value.state !== 'string' || !STATE.test(value.state)) {
    return null;
  }
  const starts = Array.isArray(value.starts) ? value.starts.filter(isObject).slice(-LIST) : [];
  return {
    run_id: value.run_id,
    short: text(value.short),
    name: text(value.name) || plain(value.run_id, NAME),
    owner: text(value.owner),
    state: text(value.state),
    attempt: numberOf(value.attempt),
    starts: starts.map(s => ({ n: numberOf(s.n), epoch: numberOf(s.epoch), step: numberOf(s.step) })),
    epochs: numberOf(value.epochs),
    initial_epoch: numberOf(value.initial_epoch),
    epochs_done: numberOf(value.epochs_done),
    model: text(value.model),
    worker: text(value.worker),
    host: text(value.host),
    device: text(value.device),
    notebook: text(value.notebook, SENTENCE),
    cell: text(value.cell),
    labels: labelsOf(value.labels),
    submitted_ms: numberOf(value.submitted_ms),
    started_ms: numberOf(value.started_ms),
    ended_ms: numberOf(value.ended_ms),
    heartbeat_ms: numberOf(value.heartbeat_ms),
    queue: numberOf(value.queue),
    waiting: text(value.waiting, SENTENCE),
    warning: text(value.warning, SENTENCE),
    error: errorOf(value.error),
    ended_by: text(value.ended_by),
    wish: text(value.wish),
    process: text(value.process),
    checkpoint: placeOf(value.checkpoint),
    applied: appliedOf(value.applied),
    retry_of: text(value.retry_of),
    code: value.code === true,
    stopped_early: value.stopped_early === true,
    metrics: metricsOf(value.metrics),
    files: Array.isArray(value.files) ? value.files.filter(f => typeof f === 'string').slice(0, LIST).map(f => text(f)) : [],
    read_only: value.read_only === true,
    terminal: value.terminal === true,
    upto: numberOf(value.upto),
    tally: tallyOf(value.tally)
  };
}

function labelsOf(value: unknown): Record<string, string> {
  const pairs = isObject(value) ? Object.entries(value) : [];
  const labels = pairs.filter(([, label]) => typeof label === 'string').slice(0, LIST);
  return Object.fromEntries(labels.map(([name, label]) => [text(name), text(label)]));
}

function tallyOf(value: unknown): ITally | null {
  if (!isObject(value)) {
    return null;
  }
  const best = Object.entries(isObject(value.best) ? value.best : {});
  const pairs = best.filter((pair): pair is [string, [number, number]] => {
    const found: unknown = pair[1];
    return Array.isArray(found) && found.length === 2 && found.every(Number.isFinite);
  });
  return {
    done: numberOf(value.done),
    metrics: metricsOf(value.metrics),
    best: Object.fromEntries(pairs.map(([name, best]) => [text(name), best])),
    seconds: numberOf(value.seconds),
    at_ms: numberOf(value.at_ms)
  };
}

function placeOf(value: unknown): IPlace | null {
  return isObject(value) ? { epoch: numberOf(value.epoch), step: numberOf(value.step) } : null;
}

function appliedOf(value: unknown): IApplied | null {
  const place = placeOf(value);
  return place && isObject(value) ? { ...place, settings: isObject(value.settings) ? value.settings : {} } : null;
}

function errorOf(value: unknown): IRunError | null {
  return isObject(value)
    ? {
        reason: text(value.reason),
        error: text(value.error),
        message: text(value.message, SENTENCE),
        traceback: text(value.traceback, TRACEBACK),
        attempt: numberOf(value.attempt),
        worker: text(value.worker)
      }
    : null;
}
