/** One run in the list. */
import React from 'react';

import { ago, duration, metric, ordinal, stateName, tone } from '../format';
import { doneOf, leftOf, scoreOf, shareOf } from '../listing';
import type { IRun } from '../run';
import { trans } from '../words';

export interface IRowProps {
  run: IRun;
  id: string;
  selected: boolean;
  active: boolean;
  metric: string;
  /** Of the server's clock, in ms; whole seconds, so that a row that does not move is not drawn again. 0 for a run that has ended. */
  now: number;
  onClick: (run: IRun, event: React.MouseEvent) => void;
  onCheck: (run: IRun) => void;
}

/** "12/20", "2nd", "paused" */
function far(run: IRun): string {
  if (run.state === 'QUEUED' && run.queue > 0) {
    return ordinal(run.queue);
  }
  const known = run.tally || run.epochs_done; // of a run that ended long ago the server may still be reading the rows
  return run.epochs ? `${known ? doneOf(run) : '–'}/${run.epochs}` : '–';
}

/** What a person should know beside figures: where it runs, why it waits, what went wrong. */
export function place(run: IRun): string {
  if (run.error && (run.terminal || run.state === 'RETRYING')) {
    return run.error.error || run.error.reason;
  }
  if (run.waiting && !run.terminal) {
    return run.waiting;
  }
  return run.worker ? (run.host && run.host !== run.worker ? trans.__('%1 on %2', run.worker, run.host) : run.worker) : '';
}

/** "heartbeat 1 s ago · 0:09 left" */
function pulse(run: IRun, now: number): string {
  const left = leftOf(run, now);
  const beat = run.heartbeat_ms ? trans.__('heartbeat %1', ago(now - run.heartbeat_ms)) : '';
  return [beat, left === null ? '' : trans.__('%1 left', duration(left + 999))].filter(Boolean).join(' · ');
}

/** All of it for people who listen; it changes with the state and the epoch, not with the clock. */
export function spokenRow(run: IRun, wanted: string): string {
  const score = scoreOf(run, wanted);
  const told = [
    run.name,
    run.short,
    stateName(run.state).toLowerCase(),
    trans.__('epoch %1 of %2', doneOf(run), run.epochs),
    run.notebook,
    place(run),
    score ? trans.__('best %1 %2', score.name, metric(score.value)) : ''
  ];
  return told.filter(Boolean).join(', ');
}

function Row({ run, id, selected, active, metric: wanted, now, onClick, onCheck }: IRowProps): React.JSX.Element {
  const score = scoreOf(run, wanted);
  const quiet = ['RUNNING', 'SUCCEEDED', 'CLAIMED'].includes(run.state) ? '' : stateName(run.state).toLowerCase();
  const beneath = [quiet, run.notebook.split('/').pop(), place(run)].filter(Boolean).join(' · ');
  return (
    <div
      id={id}
      role="option"
      aria-selected={selected}
      aria-label={spokenRow(run, wanted)}
      className={`kj-Row${active ? ' kj-mod-active' : ''}`}
      data-tone={tone(run.state)}
      data-state={run.state}
      data-run={run.run_id}
      onClick={event => onClick(run, event)}
    >
      <span
        className="kj-mark"
        title={stateName(run.state)}
        onClick={event => {
          event.stopPropagation();
          onCheck(run);
        }}
      />
      <span className="kj-rowName" title={run.name}>
        {run.name} <span className="kj-id">{run.short}</span>
      </span>
      <span className="kj-rowFar">{far(run)}</span>
      <span className="kj-rowScore">{score ? metric(score.value) : '–'}</span>
      <span className="kj-rowPlace" title={beneath}>
        {beneath}
      </span>
      <span className="kj-rowBar">
        <span className="kj-rowFill" style={{ width: `${(100 * shareOf(run)).toFixed(1)}%` }} />
      </span>
      <span className="kj-rowMetric" title={score ? `${score.name} @${score.epoch}` : ''}>
        {score?.name ?? ''}
      </span>
      {run.terminal || !run.heartbeat_ms ? null : <span className="kj-rowPulse">{pulse(run, now)}</span>}
    </div>
  );
}

export const RunRow = React.memo(Row);
