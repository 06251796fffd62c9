/** What the status bar says, and what is told when a run of mine ends. */
import { Notification } from '@jupyterlab/apputils';
import { ReactWidget } from '@jupyterlab/ui-components';
import React from 'react';

import { metric, stateName } from '../format';
import { scoreOf } from '../listing';
import type { IRun } from '../run';
import type { RunsModel } from '../runs';
import { trans } from '../words';
import { useNews } from './context';

/** "Kafka: 2 running, 1 queued" */
export function summary(runs: readonly IRun[]): string {
  const waiting = runs.filter(run => ['QUEUED', 'LOST', 'RETRYING'].includes(run.state)).length;
  const resting = runs.filter(run => run.state === 'PAUSED').length;
  const running = runs.filter(run => !run.terminal).length - waiting - resting;
  const queued = waiting ? trans.__('%1 queued', waiting) : '';
  return trans.__('Kafka: %1', [trans.__('%1 running', running), queued].filter(Boolean).join(', '));
}

function Item({ model, onOpen }: { model: RunsModel; onOpen: () => void }): React.JSX.Element | null {
  useNews(React.useCallback(listener => model.listen(listener), [model]), 1000, false);
  return model.loaded ? (
    <button type="button" className="kj-status" title={trans.__('Show the runs')} onClick={onOpen}>
      {summary(model.runs)}
    </button>
  ) : null;
}

export class StatusItem extends ReactWidget {
  constructor(
    private readonly _model: RunsModel,
    private readonly _onOpen: () => void
  ) {
    super();
  }

  render(): React.JSX.Element {
    return <Item model={this._model} onOpen={this._onOpen} />;
  }
}

const ENDS: Record<string, 'success' | 'warning' | 'error'> = { SUCCEEDED: 'success', CANCELLED: 'warning', FAILED: 'error', DEAD: 'error' };

/** One sentence, in which the names come last: JupyterLab cuts it at 140 characters. */
export function ending(run: IRun): string {
  const score = scoreOf(run);
  const why = run.error ? (run.error.error || run.error.reason).slice(0, 40) : '';
  const told = run.state === 'SUCCEEDED' ? (score ? `${score.name.slice(0, 30)} ${metric(score.value)}` : '') : why;
  return [trans.__('Run %1: %2', run.name.slice(0, 60), stateName(run.state).toLowerCase()), told].filter(Boolean).join(', ');
}

/** Tells of the end of runs that are mine. Returns the way out. */
export function notifyEnds(model: RunsModel, wanted: () => boolean, open: (run: IRun) => void): () => void {
  return model.onEnd(run => {
    if (wanted() && run.owner === model.me) {
      Notification.emit(ending(run), ENDS[run.state] ?? 'info', {
        autoClose: 15_000,
        actions: [{ label: trans.__('Show'), callback: () => open(run) }]
      });
    }
  });
}
