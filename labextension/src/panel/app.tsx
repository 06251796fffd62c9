/** The whole panel: heading, pages, and what went wrong last. */
import React from 'react';

import { PAGES, type Page } from '../panelstate';
import type { Standing } from '../runs';
import { trans } from '../words';
import { Compare } from './compare';
import { useNews, usePanel, useState_ } from './context';
import { RunDetail } from './detail';
import { RunList } from './list';
import { Queue, Workers, slots, waitingRuns } from './workers';

function standingText(standing: Standing): string {
  return {
    loading: trans.__('loading…'),
    live: trans.__('live'),
    reconnecting: trans.__('reconnecting…'),
    'no-kafka': trans.__('no Kafka'),
    unusable: trans.__('no Kafka'),
    refused: trans.__('not allowed'),
    off: trans.__('off')
  }[standing];
}

function Heading(): React.JSX.Element {
  const { model } = usePanel();
  useNews(React.useCallback(listener => model.listen(listener), [model]), 0, false);
  return (
    <div className="kj-panelHead">
      <h2>{trans.__('Kafka runs')}</h2>
      <span className="kj-standing" data-standing={model.standing} title={model.trouble} role="status">
        {standingText(model.standing)}
      </span>
    </div>
  );
}

function Tabs(): React.JSX.Element {
  const { model, state, settings } = usePanel();
  useNews(React.useCallback(listener => model.listen(listener), [model]), settings.refresh, false);
  const { page } = useState_(state);
  const labels: Record<Page, string> = {
    runs: trans.__('Runs'),
    queue: trans.__('Queue %1', waitingRuns(model.runs).length),
    workers: trans.__('Workers %1', model.workers.length)
  };
  const tabs = React.useRef<HTMLDivElement>(null);
  const press = (event: React.KeyboardEvent) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) {
      const next = PAGES[(PAGES.indexOf(page) + step + PAGES.length) % PAGES.length];
      state.update({ page: next });
      tabs.current?.querySelector<HTMLElement>(`[data-page="${next}"]`)?.focus();
      event.preventDefault();
    }
  };
  return (
    <div ref={tabs} className="kj-tabs" role="tablist" aria-label={trans.__('Kafka runs')} onKeyDown={press}>
      {PAGES.map(each => (
        <button
          key={each}
          type="button"
          role="tab"
          data-page={each}
          id={`kj-tab-${each}`}
          aria-selected={each === page}
          aria-controls="kj-page"
          tabIndex={each === page ? 0 : -1}
          onClick={() => state.update({ page: each })}
        >
          {labels[each]}
        </button>
      ))}
    </div>
  );
}

function Trouble(): React.JSX.Element {
  const { actions } = usePanel();
  useNews(React.useCallback(listener => actions.listen(listener), [actions]), 0, false);
  return (
    <div className="kj-alert" role="alert" hidden={!actions.trouble}>
      <span>{actions.trouble}</span>
      <button type="button" className="kj-button kj-mod-quiet" aria-label={trans.__('Dismiss')} onClick={() => actions.dismiss()}>
        ×
      </button>
    </div>
  );
}

function Foot(): React.JSX.Element {
  const { model, state, settings } = usePanel();
  useNews(React.useCallback(listener => model.listen(listener), [model]), settings.refresh, false);
  return (
    <button type="button" className="kj-panelFoot" onClick={() => state.update({ page: 'workers', open: '', compared: [] })}>
      {model.loaded ? slots(model.workers) : ''}
    </button>
  );
}

function Page_(): React.JSX.Element {
  const { state } = usePanel();
  const { page, open, compared } = useState_(state);
  if (open) {
    return <RunDetail key={open} runId={open} onBack={() => state.update({ open: '' })} />;
  }
  if (compared.length > 1) {
    return <Compare runIds={compared} onBack={() => state.update({ compared: [] })} />;
  }
  const pages: Record<Page, () => React.JSX.Element> = { runs: RunList, queue: Queue, workers: Workers };
  const Shown = pages[page];
  return (
    <>
      <Tabs />
      <div id="kj-page" className="kj-page" role="tabpanel" aria-labelledby={`kj-tab-${page}`}>
        <Shown />
      </div>
    </>
  );
}

export function App(): React.JSX.Element {
  return (
    <>
      <Heading />
      <Trouble />
      <Page_ />
      <Foot />
    </>
  );
}
