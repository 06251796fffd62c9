/** Several runs side by side: one metric's curves by epoch, the results, and the parameters in which they differ. */
import React from 'react';

import { HUES, type IChart } from '../chart';
import { type IDetails, askDetails, differing } from '../details';
import { goal, metric, stateName } from '../format';
import { RunModel } from '../model';
import { getHub } from '../stream';
import { type ICurves, metricLines } from '../summary';
import { uplotChart } from '../uplotchart';
import { trans } from '../words';
import { useNews, usePanel } from './context';
import { Head } from './head';

export const MOST = HUES.length; // runs in one picture
const HEIGHT = 220; // px of the curves

/** The models of these runs, followed while the page is open. */
function useModels(runIds: readonly string[]): { models: readonly RunModel[]; listen: (listener: () => void) => () => void } {
  const key = runIds.join();
  const made = React.useMemo(() => {
    const listeners = new Set<() => void>();
    const models = key.split(',').map(runId => new RunModel(runId));
    const listen = (listener: () => void) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    };
    return { models, listen, tell: () => listeners.forEach(listener => listener()) };
  }, [key]);
  React.useEffect(() => {
    made.models.forEach(model => model.follow(made.tell));
    return () => made.models.forEach(model => model.dispose());
  }, [made]);
  return made;
}

/** One metric of all runs over the epochs that any of them has. */
export function picture(models: readonly RunModel[], name: string): ICurves {
  const x = [...new Set(models.flatMap(model => model.history.epochs.map(row => row.epoch + 1)))].sort((a, b) => a - b);
  const curves = models.map((model, hue) => {
    const values = new Map(model.history.epochs.map(row => [row.epoch + 1, row.metrics[name]]));
    return { name: model.runId, dashed: false, hue, values: x.map(epoch => values.get(epoch)) };
  });
  return { title: name, x, curves, height: HEIGHT };
}

function Curves({ curves, label }: { curves: ICurves; label: string }): React.JSX.Element {
  const host = React.useRef<HTMLDivElement>(null);
  const chart = React.useRef<IChart | null>(null);
  const [width, measure] = React.useState(0);
  React.useLayoutEffect(() => {
    const node = host.current!;
    const color = (name: string, fallback: string) => getComputedStyle(node).getPropertyValue(name).trim() || fallback;
    const made = (chart.current = uplotChart(node, color));
    const resized = new ResizeObserver(() => measure(node.clientWidth));
    resized.observe(node);
    const theme = new MutationObserver(() => made.recolor());
    theme.observe(document.body, { attributes: true, attributeFilter: ['data-jp-theme-light', 'data-jp-theme-name'] });
    return () => {
      resized.disconnect();
      theme.disconnect();
      made.dispose();
    };
  }, []);
  React.useLayoutEffect(() => {
    if (width > 40 && curves.x.length) {
      chart.current?.draw(curves, width);
    }
  });
  return <div ref={host} className="kj-curves" role="img" aria-label={label} style={{ height: HEIGHT }} />;
}

function Key({ hue }: { hue: number }): React.JSX.Element {
  const [light, dark, dash] = HUES[hue % HUES.length];
  const style = { '--kj-light': light, '--kj-dark': dark } as React.CSSProperties;
  return (
    <svg className="kj-hue" width="26" height="8" aria-hidden="true" style={style}>
      <path d="M0 4H26" strokeDasharray={dash.join(' ') || undefined} />
    </svg>
  );
}

function useDetailsOf(runIds: readonly string[]): (IDetails | null)[] {
  const [found, put] = React.useState<Record<string, IDetails>>({});
  const key = runIds.join();
  React.useEffect(() => {
    let current = true;
    key.split(',').forEach(runId => {
      askDetails(getHub(), runId)
        .then(details => current && put(before => ({ ...before, [runId]: details })))
        .catch(() => undefined); // its column stays empty
    });
    return () => {
      current = false;
    };
  }, [key]);
  return runIds.map(runId => found[runId] ?? null);
}

export function Compare({ runIds, onBack }: { runIds: readonly string[]; onBack?: () => void }): React.JSX.Element {
  const { settings } = usePanel();
  const shown = runIds.slice(0, MOST);
  const { models, listen } = useModels(shown);
  useNews(listen, settings.refresh, false);
  const details = useDetailsOf(shown);
  const [all, showAll] = React.useState(false);
  const [wanted, want] = React.useState('');
  const lines = models.map(model => metricLines(model.history.epochs));
  const names = [...new Set(lines.flatMap(each => each.map(line => line.name)))];
  const star = names.includes('val_loss') ? 'val_loss' : 'loss';
  const name = names.includes(wanted) ? wanted : names.includes(settings.metric) ? settings.metric : names.includes(star) ? star : names[0];
  const titles = models.map(model => `${model.run?.name ?? model.runId} ${model.run?.short ?? ''}`.trim());
  const rows = differing(details.map(each => each?.parameters ?? []), all);
  return (
    <div className="kj-Compare">
      <Head runIds={runIds} onBack={onBack}>
        <select className="kj-choice" aria-label={trans.__('Metric shown')} value={name ?? ''} onChange={event => want(event.target.value)}>
          {names.map(each => (
            <option key={each} value={each}>
              {each}
            </option>
          ))}
        </select>
      </Head>
      {runIds.length > MOST ? <p className="kj-faint">{trans.__('The first %1 of %2 runs.', MOST, runIds.length)}</p> : null}
      {name ? (
        <Curves curves={picture(models, name)} label={trans.__('%1 by epoch, of %2', name, titles.join(', '))} />
      ) : (
        <p className="kj-faint">{trans.__('None of them has finished an epoch yet.')}</p>
      )}
      <div className="kj-tableBox" tabIndex={0} role="region" aria-label={trans.__('Comparison')}>
        <table className="kj-table kj-mod-compare">
          <thead>
            <tr>
              <td />
              {models.map((model, i) => (
                <th key={model.runId} scope="col" title={model.runId}>
                  <Key hue={i} />
                  <span className="kj-bdi">{model.run?.name ?? model.runId}</span> <span className="kj-id">{model.run?.short}</span>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            <tr>
              <th scope="row">{trans.__('state')}</th>
              {models.map(model => (
                <td key={model.runId}>{model.run ? stateName(model.run.state).toLowerCase() : ''}</td>
              ))}
            </tr>
            {names.map(each => (
              <BestRow key={each} name={each} lines={lines.map(of => of.find(line => line.name === each))} />
            ))}
            {rows.map(([parameter, values]) => (
              <tr key={parameter} className="kj-parameter">
                <th scope="row">{parameter}</th>
                {values.map((value, i) => (
                  <td key={models[i].runId}>{value === undefined ? '–' : String(value)}</td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <label className="kj-all">
        <input type="checkbox" checked={all} onChange={event => showAll(event.target.checked)} />
        {trans.__('Parameters that are equal too')}
      </label>
    </div>
  );
}

interface IBest {
  best: number | null;
  bestEpoch: number;
  last: number | null | undefined;
}

/** The best value of each run; of all of them the best one is marked by a star as well. */
function BestRow({ name, lines }: { name: string; lines: (IBest | undefined)[] }): React.JSX.Element {
  const found = lines.map(line => line?.best).filter((value): value is number => typeof value === 'number');
  const top = found.length ? (goal(name) === 'max' ? Math.max(...found) : Math.min(...found)) : null;
  return (
    <tr>
      <th scope="row">{name}</th>
      {lines.map((line, i) => {
        const best = line?.best ?? null;
        const star = best !== null && best === top && found.length > 1;
        return (
          <td key={i} className={star ? 'kj-best' : ''}>
            {best === null ? metric(line?.last) : `${metric(best)}${star ? ' ★' : ''} @${line?.bestEpoch}`}
          </td>
        );
      })}
    </tr>
  );
}
