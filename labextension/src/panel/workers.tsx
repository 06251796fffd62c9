/** Who trains, and what waits for it. */
import React from 'react';

import { ago, ordinal } from '../format';
import { isQueued } from '../listing';
import type { IRun } from '../run';
import type { IWorker, RunsModel } from '../runs';
import { walls } from '../walls';
import { trans } from '../words';
import { useNews, usePanel } from './context';

const GIB = 2 ** 30;

/** "2 free slots of 4" */
export function slots(workers: readonly IWorker[]): string {
  if (!workers.length) {
    return trans.__('No workers');
  }
  const [free, all] = [workers.reduce((sum, w) => sum + w.free, 0), workers.reduce((sum, w) => sum + w.slots, 0)];
  return trans._n('Workers: %1 free slot of %2', 'Workers: %1 free slots of %2', free, all);
}

export function waitingRuns(runs: readonly IRun[]): IRun[] {
  const waiting = runs.filter(run => run.queue > 0 || isQueued(run));
  return waiting.sort((a, b) => (a.queue || Infinity) - (b.queue || Infinity) || a.submitted_ms - b.submitted_ms);
}

function useModel(): RunsModel {
  const { model, settings } = usePanel();
  useNews(React.useCallback(listener => model.listen(listener), [model]), settings.refresh, true);
  return model;
}

export function Workers(): React.JSX.Element {
  const model = useModel();
  const { state } = usePanel();
  if (!model.workers.length) {
    return (
      <div className="kj-nothing">
        <b>{trans.__('No workers')}</b>
        <p>{trans.__('Runs wait until one is there. Start one on any machine that reaches Kafka:')}</p>
        <code>kafka-jupyter worker</code>
      </div>
    );
  }
  return (
    <ul className="kj-Workers" aria-label={trans.__('Workers')}>
      {model.workers.map(worker => (
        <li key={worker.worker_id} className="kj-Worker" data-worker={worker.worker_id}>
          <div className="kj-workerHead">
            <span className="kj-rowName">{worker.name}</span>
            <span>{trans.__('%1 of %2 slots free', worker.free, worker.slots)}</span>
          </div>
          <div className="kj-faint">
            {[
              worker.host,
              worker.devices.length ? worker.devices.join(', ') : worker.device,
              worker.memory ? `${(worker.memory / GIB).toFixed(1)} GiB` : '',
              ...Object.entries(worker.versions).map(([name, version]) => `${name} ${version}`)
            ]
              .filter(Boolean)
              .join(' · ')}
          </div>
          <div className="kj-faint kj-walls">{walls(worker)}</div>
          {worker.unfit ? <div className="kj-trouble">{trans.__('Takes nothing: %1', worker.unfit)}</div> : null}
          {worker.running.length ? (
            <ul className="kj-doing" aria-label={trans.__('Runs of %1', worker.name)}>
              {worker.running.map(runId => (
                <li key={runId}>
                  <button type="button" className="kj-link" onClick={() => state.update({ open: runId })}>
                    {model.run(runId)?.name ?? runId} <span className="kj-id">{model.run(runId)?.short}</span>
                  </button>
                </li>
              ))}
            </ul>
          ) : (
            <div className="kj-faint">{worker.unfit ? '' : trans.__('idle')}</div>
          )}
        </li>
      ))}
    </ul>
  );
}

export function Queue(): React.JSX.Element {
  const model = useModel();
  const { state } = usePanel();
  const waiting = waitingRuns(model.runs);
  if (!waiting.length) {
    return (
      <div className="kj-nothing">
        <b>{trans.__('Nothing waits')}</b>
        <p>{slots(model.workers)}</p>
      </div>
    );
  }
  return (
    <ol className="kj-Queue" aria-label={trans.__('Queue')}>
      {waiting.map(run => (
        <li key={run.run_id} data-run={run.run_id}>
          <span className="kj-rowFar">{run.queue ? ordinal(run.queue) : '–'}</span>
          <button type="button" className="kj-link kj-rowName" onClick={() => state.update({ open: run.run_id })}>
            {run.name} <span className="kj-id">{run.short}</span>
          </button>
          <span className="kj-faint">{trans.__('submitted %1', ago(model.now() - run.submitted_ms))}</span>
          <span className="kj-faint kj-why">{run.waiting}</span>
        </li>
      ))}
    </ol>
  );
}
