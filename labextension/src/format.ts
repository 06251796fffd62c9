/** Words and numbers as a person reads them. `kafka_jupyter/notebook/figures.py` is the same in Python: tests/cases.json holds both. */

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
    return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  }
  const minutes = Math.floor(all / 60) % 60;
  const seconds = two(all % 60);
  return hours ? `${hours}:${two(minutes)}:${seconds}` : `${minutes}:${seconds}`;
}

/** The age of a heartbeat: "1 s ago", "2:05 ago". */
export function ago(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  return seconds < 60 ? `${seconds} s ago` : `${duration(ms)} ago`;
}

/** Seconds of one epoch: "12 ms", "0.84 s", "3.2 s", "12 s", "1:05". */
export function pace(seconds: number): string {
  if (seconds < 0.1) {
    return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  }
  if (seconds < 60) {
    return `${seconds.toFixed(seconds < 1 ? 2 : seconds < 10 ? 1 : 0)} s`;
  }
  return duration(seconds * 1000);
}

export function ordinal(n: number): string {
  const tens = n % 100;
  const ending = tens > 10 && tens < 14 ? 'th' : ['th', 'st', 'nd', 'rd'][n % 10] ?? 'th';
  return `${n}${ending}`;
}

export function count(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? '' : 's'}`;
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
  return TONES[state] ?? 'idle';
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
