/** One run, whole: its card, and beneath it what it writes, trains, tried and stored. */
import React from 'react';

import { RunCard } from '../card';
import { type IDetails, askDetails, bytes } from '../details';
import type { IRow } from '../rows';
import type { IRun } from '../run';
import { getHub } from '../stream';
import { trans } from '../words';
import { usePanel, useState_ } from './context';
import { Head } from './head';

const SHOWN_LINES = 400;
const AT_END = 24; // px; who has scrolled up is left there

function Section({ name, title, children }: { name: string; title: string; children: React.ReactNode }): React.JSX.Element {
  const { state } = usePanel();
  const { unfolded } = useState_(state);
  const open = unfolded.includes(name);
  return (
    <details
      className="kj-section"
      open={open}
      onToggle={event => {
        if (event.currentTarget.open !== open) {
          state.update({ unfolded: open ? unfolded.filter(each => each !== name) : [...unfolded, name] });
        }
      }}
    >
      <summary>{title}</summary>
      {open ? children : null}
    </details>
  );
}

/** The last lines, as text; stays at the end while a person is there. */
function Log({ lines, cut }: { lines: readonly IRow[]; cut: boolean }): React.JSX.Element {
  const box = React.useRef<HTMLPreElement>(null);
  const atEnd = React.useRef(true);
  const shown = lines.slice(-SHOWN_LINES);
  const text = shown.map(line => line.text).join('\n');
  React.useLayoutEffect(() => {
    if (box.current && atEnd.current) {
      box.current.scrollTop = box.current.scrollHeight;
    }
  }, [text]);
  if (!shown.length) {
    return <p className="kj-faint">{trans.__('It has written nothing.')}</p>;
  }
  const more = lines.length > SHOWN_LINES || cut;
  return (
    <>
      {more ? <p className="kj-faint">{trans.__('The last %1 lines; all of them: kafka-jupyter logs', SHOWN_LINES)}</p> : null}
      <pre
        ref={box}
        className="kj-log"
        tabIndex={0}
        role="log"
        aria-live="off"
        aria-label={trans.__('What it writes')}
        onScroll={event => {
          const { scrollTop, scrollHeight, clientHeight } = event.currentTarget;
          atEnd.current = scrollHeight - scrollTop - clientHeight < AT_END;
        }}
      >
        {text}
      </pre>
    </>
  );
}

function Details({ run, details }: { run: IRun; details: IDetails }): React.JSX.Element {
  return (
    <>
      <Section name="parameters" title={trans.__('Parameters')}>
        {details.task ? null : <p className="kj-faint">{trans.__('Its task has left the log.')}</p>}
        <table className="kj-table">
          <tbody>
            {details.parameters.map(([name, value]) => (
              <tr key={name}>
                <th scope="row">{name}</th>
                <td>{String(value)}</td>
              </tr>
            ))}
            {Object.entries(run.labels).map(([name, value]) => (
              <tr key={`label ${name}`}>
                <th scope="row">{trans.__('label %1', name)}</th>
                <td>{value}</td>
              </tr>
            ))}
          </tbody>
        </table>
        {details.versions ? <p className="kj-faint">{details.versions}</p> : null}
      </Section>
      <Section name="attempts" title={trans.__('Attempts (%1)', details.attempts.length)}>
        <ol className="kj-attempts">
          {details.attempts.map(attempt => (
            <li key={attempt.n} value={attempt.n}>
              {[
                attempt.worker,
                attempt.host,
                attempt.device,
                attempt.step
                  ? trans.__('from epoch %1, batch %2', attempt.epoch + 1, attempt.step)
                  : trans.__('from epoch %1', attempt.epoch + 1),
                new Date(attempt.started_ms).toLocaleString(),
                attempt.ended.toLowerCase()
              ]
                .filter(Boolean)
                .join(' · ')}
            </li>
          ))}
        </ol>
      </Section>
      <Section name="artifacts" title={trans.__('Artifacts (%1)', details.artifacts.length)}>
        <table className="kj-table">
          <tbody>
            {details.artifacts.map((artifact, i) => (
              <tr key={i}>
                <th scope="row">{artifact.name}</th>
                <td>{artifact.kind}</td>
                <td title={artifact.sha256}>{bytes(artifact.size)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Section>
      {details.source ? (
        <Section name="source" title={trans.__('The cell')}>
          <pre className="kj-log" tabIndex={0} aria-label={trans.__('The cell')}>
            {details.source}
          </pre>
        </Section>
      ) : null}
    </>
  );
}

function useDetails(runId: string, key: string): { details: IDetails | null; trouble: string } {
  const [found, put] = React.useState<{ details: IDetails | null; trouble: string }>({ details: null, trouble: '' });
  React.useEffect(() => {
    let current = true;
    askDetails(getHub(), runId)
      .then(details => current && put({ details, trouble: '' }))
      .catch((error: Error) => current && put(before => ({ ...before, trouble: error.message })));
    return () => {
      current = false;
    };
  }, [runId, key]);
  return found;
}

/** The page of one run; `onBack` is missing where it stands alone. */
export function RunDetail({ runId, onBack }: { runId: string; onBack?: () => void }): React.JSX.Element {
  const { actions } = usePanel();
  const host = React.useRef<HTMLDivElement>(null);
  const [, redraw] = React.useReducer((count: number) => count + 1, 0);
  const card = React.useRef<RunCard | null>(null);
  React.useEffect(() => {
    const made = new RunCard(host.current!, { source: 'panel', open: true, lines: true, offline: '', rendered: redraw });
    card.current = made;
    made.show([runId]);
    return () => {
      card.current = null;
      made.dispose();
    };
  }, [runId]);
  const model = card.current?.model(runId);
  const run = model?.run ?? null;
  // attempts and artifacts change with these, and with nothing that comes more often
  const { details, trouble } = useDetails(runId, `${run?.state} ${run?.attempt} ${run?.checkpoint?.epoch}`);
  return (
    <div className="kj-Detail" data-run={runId}>
      <Head runIds={[runId]} onBack={onBack}>
        {run && !run.terminal ? (
          <button type="button" className="kj-button" onClick={() => void actions.setRate(run)}>
            {trans.__('Learning rate…')}
          </button>
        ) : null}
        {run?.notebook ? (
          <button type="button" className="kj-button" title={run.notebook} onClick={() => void actions.openNotebook(run)}>
            {trans.__('Open notebook')}
          </button>
        ) : null}
      </Head>
      <div ref={host} />
      <Section name="log" title={trans.__('Log')}>
        <Log lines={model?.lines.all ?? []} cut={model?.lines.cut ?? false} />
      </Section>
      {run && details ? <Details run={run} details={details} /> : null}
      {trouble ? <p className="kj-trouble">{trouble}</p> : null}
    </div>
  );
}
