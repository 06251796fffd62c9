/** Words and numbers as a person reads them. `kafka_jupyter/runs/figures.py` is the same in Python: tests/cases.json holds both. */

import { trans } from './words';

/** A metric: four decimals where they mean something. `null` is how NaN and infinity travel. */
export function metric(value: number | null | undefined): string {
  if (value === undefined) {
    return '–';
  }
  if (value === null || !Number.isFinite(value)) {
    return 'NaN';
  }
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) {
    return value.toExponential(3).replace('e+', 'e');
  }
  return value.toFixed(size < 100 ? 4 : size < 1e4 ? 2 : 0);
}

/** 31000 → "0:31", 3_723_000 → "1:02:03", 183_600_000 → "2 d 3 h". */
export function duration(ms: number): string {
  const all = Math.max(0, Math.floor(ms / 1000));
  const hours = Math.floor(all / 3600);
  const two = (n: number) => String(n).padStart(2, '0');
  if (hours >= 24) {
    return trans.__('%1 d %2 h', Math.floor(hours / 24), hours % 24);
  }
  const minutes = Math.floor(all / 60) % 60;
  const seconds = two(all % 60);
  return hours ? `${hours}:${two(minutes)}:${seconds}` : `${minutes}:${seconds}`;
}

/** The age of a heartbeat: "1 s ago", "2:05 ago". */
export function ago(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  return seconds < 60 ? trans.__('%1 s ago', seconds) : trans.__('%1 ago', duration(ms));
}

/** Seconds of one epoch: "12 ms", "0.84 s", "3.2 s", "12 s", "1:05". */
export function pace(seconds: number): string {
  if (seconds < 0.1) {
    return trans.__('%1 ms', Math.max(1, Math.round(seconds * 1000)));
  }
  if (seconds < 60) {
    return trans.__('%1 s', seconds.toFixed(seconds < 1 ? 2 : seconds < 10 ? 1 : 0));
  }
  return duration(seconds * 1000);
}

/** 1 → "1st", 12 → "12th". Other languages have one form, or say it in their own way. */
export function ordinal(n: number): string {
  const ending = n % 100 > 10 && n % 100 < 14 ? 0 : n % 10;
  const forms: Record<number, string> = { 1: trans.__('%1st', n), 2: trans.__('%1nd', n), 3: trans.__('%1rd', n) };
  return forms[ending] ?? trans.__('%1th', n);
}

/* eslint-disable no-control-regex -- control characters are what is looked for */
const ANSI = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)/g;
const CONTROL = /[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g;
/* eslint-enable no-control-regex */

/** Somebody else's text as it may be shown: without what steers terminals or turns the writing direction of what stands beside it. */
export function plain(text: string, limit: number): string {
  const cut = text.length > limit ? `${text.slice(0, limit)}…` : text;
  return cut.replace(ANSI, '').replace(CONTROL, '');
}

export type Tone = 'brand' | 'idle' | 'warn' | 'ok' | 'err';

/** The state as a word of the page's language. */
export function stateName(state: string): string {
  const names: Record<string, string> = {
    QUEUED: trans.__('QUEUED'),
    CLAIMED: trans.__('CLAIMED'),
    RUNNING: trans.__('RUNNING'),
    PAUSING: trans.__('PAUSING'),
    PAUSED: trans.__('PAUSED'),
    STOPPING: trans.__('STOPPING'),
    CANCELLING: trans.__('CANCELLING'),
    LOST: trans.__('LOST'),
    RETRYING: trans.__('RETRYING'),
    SUCCEEDED: trans.__('SUCCEEDED'),
    FAILED: trans.__('FAILED'),
    CANCELLED: trans.__('CANCELLED'),
    DEAD: trans.__('DEAD')
  };
  return Object.hasOwn(names, state) ? names[state] : state;
}

const TONES: Record<string, Tone> = {
  CLAIMED: 'brand',
  RUNNING: 'brand',
  PAUSING: 'warn',
  PAUSED: 'warn',
  STOPPING: 'warn',
  CANCELLING: 'warn',
  LOST: 'warn',
  RETRYING: 'warn',
  SUCCEEDED: 'ok',
  FAILED: 'err',
  DEAD: 'err'
};

/** The colour family of a state; its word is the state itself. */
export function tone(state: string): Tone {
  return Object.hasOwn(TONES, state) ? TONES[state] : 'idle';
}

const GROWS = /acc|auc|precision|recall|f1|fbeta|iou|r2|cosine_similarity|true_positives|true_negatives|sensitivity|specificity/;

/** Is more better? `null`: neither (a learning rate). Decided by the name, as Keras and `runs/view.py` do. */
export function goal(name: string): 'max' | 'min' | null {
  if (name === 'lr' || name === 'learning_rate') {
    return null;
  }
  const lower = name.toLowerCase();
  return GROWS.test(lower) && !lower.includes('loss') ? 'max' : 'min';
}
