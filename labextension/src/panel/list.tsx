/** The list of runs: filter, order, selection; all of it by keyboard too. */
import React from 'react';

import { SORTS, type Sort, chosen, grouped, wordFor } from '../listing';
import type { IRun } from '../run';
import { trans } from '../words';
import { VERBS, canAsk, labelOf } from './actions';
import { useNews, usePanel, useState_ } from './context';
import { Nothing } from './nothing';
import { RunRow } from './row';

function sortLabel(sort: Sort): string {
  return {
    newest: trans.__('Newest first'),
    name: trans.__('By name'),
    state: trans.__('By state'),
    progress: trans.__('By progress'),
    metric: trans.__('By metric'),
    left: trans.__('By time left')
  }[sort];
}

export function RunList(): React.JSX.Element {
  const { model, state, actions, settings } = usePanel();
  const now = useState_(state);
  useNews(React.useCallback(listener => model.listen(listener), [model]), settings.refresh, model.runs.some(run => !run.terminal));
  const [selected, select] = React.useState<ReadonlySet<string>>(new Set());
  const [active, setActive] = React.useState('');
  const list = React.useRef<HTMLDivElement>(null);
  const prefix = React.useId();

  const clock = Math.floor(model.now() / 1000) * 1000;
  const query = { text: now.text, owner: now.mine ? model.me : '', sort: now.sort, metric: settings.metric, hidden: new Set(now.hidden) };
  const shown = chosen(model.runs, query, clock);
  const groups = grouped(shown, query, clock);
  const order = groups.flatMap(group => group.runs);
  const marked = order.filter(run => selected.has(run.run_id));

  const open = (run: IRun) => state.update({ open: run.run_id });
  const toggle = React.useCallback((run: IRun) => {
    setActive(run.run_id);
    select(before => {
      const after = new Set(before);
      if (!after.delete(run.run_id)) {
        after.add(run.run_id);
      }
      return after;
    });
  }, []);
  const latest = React.useRef({ order, active, open });
  latest.current = { order, active, open };
  const click = React.useCallback(
    (run: IRun, event: React.MouseEvent) => {
      const { order, active, open } = latest.current;
      if (event.shiftKey) {
        const [from, to] = [order.findIndex(each => each.run_id === active), order.indexOf(run)].sort((a, b) => a - b);
        select(before => new Set([...before, ...order.slice(Math.max(0, from), to + 1).map(each => each.run_id)]));
        setActive(run.run_id);
      } else if (event.ctrlKey || event.metaKey) {
        toggle(run);
      } else {
        setActive(run.run_id);
        open(run);
      }
    },
    [toggle]
  );

  const move = (index: number, extend: boolean) => {
    const run = order[Math.min(order.length - 1, Math.max(0, index))];
    if (!run) {
      return;
    }
    if (extend) {
      select(new Set([...selected, active, run.run_id].filter(Boolean)));
    }
    setActive(run.run_id);
    list.current?.querySelector(`[data-run="${CSS.escape(run.run_id)}"]`)?.scrollIntoView({ block: 'nearest' });
  };

  const press = (event: React.KeyboardEvent) => {
    const at = order.findIndex(run => run.run_id === active);
    const page = 10;
    const steps: Record<string, number> = {
      ArrowDown: at + 1,
      ArrowUp: at < 0 ? order.length - 1 : at - 1,
      PageDown: at + page,
      PageUp: at - page,
      Home: 0,
      End: order.length - 1
    };
    if (event.key in steps) {
      move(steps[event.key], event.shiftKey);
    } else if (event.key === 'Enter' && order[at]) {
      open(order[at]);
    } else if (event.key === ' ' && order[at]) {
      toggle(order[at]);
    } else if (event.key === 'Escape' && selected.size) {
      select(new Set());
    } else if (event.key === 'a' && (event.ctrlKey || event.metaKey)) {
      select(new Set(order.map(run => run.run_id)));
    } else if (event.key === 'Delete' && order[at]) {
      hide(marked.length ? marked : [order[at]]);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation(); // the notebook has shortcuts of its own
  };

  const hide = (runs: readonly IRun[]) => {
    state.update({ hidden: [...now.hidden, ...runs.map(run => run.run_id)] });
    select(new Set());
  };

  const hidden = model.runs.filter(run => now.hidden.includes(run.run_id)).length;
  const index = order.findIndex(run => run.run_id === active);
  return (
    <>
      <div className="kj-tools">
        <input
          type="search"
          className="kj-filter"
          placeholder={trans.__('Filter: name, state:failed…')}
          aria-label={trans.__('Filter runs')}
          value={now.text}
          onChange={event => state.update({ text: event.target.value })}
          onKeyDown={event => {
            if (event.key === 'ArrowDown') {
              list.current?.focus();
            }
          }}
        />
        <span className="kj-choices">
          <button type="button" className="kj-button" aria-pressed={now.mine} onClick={() => state.update({ mine: !now.mine })}>
            {trans.__('Mine')}
          </button>
          <select
            className="kj-choice"
            aria-label={trans.__('Order')}
            value={now.sort}
            onChange={event => state.update({ sort: event.target.value as Sort })}
          >
            {SORTS.map(sort => (
              <option key={sort} value={sort}>
                {sortLabel(sort)}
              </option>
            ))}
          </select>
        </span>
      </div>
      {order.length ? (
        <div
          ref={list}
          className="kj-List"
          role="listbox"
          aria-multiselectable="true"
          aria-label={trans.__('Runs')}
          aria-activedescendant={index >= 0 ? `${prefix}-${active}` : undefined}
          tabIndex={0}
          onKeyDown={press}
          // By keyboard only: a press of the mouse must not scroll the row away from under it.
          onFocus={event => index < 0 && event.currentTarget.matches(':focus-visible') && move(0, false)}
        >
          {groups.map((group, i) => (
            <div key={i ? group.title : 'first'} role="group" aria-label={group.title || trans.__('Runs')}>
              {group.title ? (
                <div className="kj-group" aria-hidden="true">
                  {group.title}
                </div>
              ) : null}
              {group.runs.map(run => (
                <RunRow
                  key={run.run_id}
                  run={run}
                  id={`${prefix}-${run.run_id}`}
                  selected={selected.has(run.run_id)}
                  active={run.run_id === active}
                  metric={settings.metric}
                  now={run.terminal ? 0 : clock}
                  onClick={click}
                  onCheck={toggle}
                />
              ))}
            </div>
          ))}
        </div>
      ) : (
        <Nothing filtered={model.runs.length > 0} />
      )}
      {marked.length ? (
        <div className="kj-selection" role="toolbar" aria-label={trans.__('Selected runs')}>
          <span className="kj-count">{trans._n('%1 selected', '%1 selected', marked.length)}</span>
          {VERBS.filter(verb => canAsk(marked, verb)).map(verb => (
            <button key={verb} type="button" className="kj-button" disabled={actions.busy} onClick={() => void actions.ask(marked, verb)}>
              {labelOf(verb)}
            </button>
          ))}
          {marked.length > 1 ? (
            <button type="button" className="kj-button" onClick={() => state.update({ compared: marked.map(run => run.run_id) })}>
              {trans.__('Compare')}
            </button>
          ) : null}
          <button type="button" className="kj-button" onClick={() => hide(marked)}>
            {trans.__('Delete from view')}
          </button>
          <button type="button" className="kj-button kj-mod-quiet" onClick={() => select(new Set())}>
            {trans.__('Clear')}
          </button>
        </div>
      ) : null}
      {hidden || model.total > model.runs.length ? (
        <div className="kj-more">
          {hidden ? (
            <button type="button" className="kj-link" onClick={() => state.update({ hidden: [] })}>
              {trans._n('Show the one that was deleted from view', 'Show the %1 that were deleted from view', hidden)}
            </button>
          ) : null}
          {model.total > model.runs.length ? (
            <button type="button" className="kj-link" disabled={!wordFor(now.text)} onClick={() => void model.search(wordFor(now.text))}>
              {trans.__('%1 of %2 runs are loaded; search all for the filter', model.runs.length, model.total)}
            </button>
          ) : null}
        </div>
      ) : null}
    </>
  );
}
