/**
 * The anywidget entry: VS Code, Colab and pages without the plugin. esbuild bundles it into kafka_jupyter/notebook/static/widget.js.
 *
 * The kernel's traits are always read; where a Jupyter server answers, its stream brings the same, sooner. States replace by
 * `upto` and rows merge by (attempt, seq), so the two may overlap.
 */
import { RunCard } from './card';
import { isObject } from './rows';
import { getHub } from './stream';
import { trans } from './words';

interface IWidgetModel {
  get(name: string): unknown;
  on(name: string, callback: () => void): void;
  off(name: string, callback: () => void): void;
  send(content: unknown): void;
}

const TRAITS = ['states', 'rows', 'tail', 'waiting'];

function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function render({ model, el, signal }: { model: IWidgetModel; el: HTMLElement; signal?: AbortSignal }): (() => void) | void {
  const hub = getHub();
  const alone = () => hub.connection === 'off';
  const card = new RunCard(el, {
    source: 'widget',
    offline: '',
    ask: async (run, verb) => {
      if (!alone()) {
        return run.ask(verb);
      }
      model.send({ action: verb, run_id: run.runId });
      return '';
    },
    // a comm message waits behind the cell that is being executed
    blocked: () => (alone() && model.get('waiting') === true ? trans.__('The kernel is busy waiting for this run: interrupt the cell first') : '')
  });
  const read = () => {
    const states = listOf(model.get('states')).filter(isObject);
    card.show(states.map(state => state.run_id).filter(id => typeof id === 'string'));
    for (const state of states) {
      card.model(String(state.run_id))?.put(state);
    }
    for (const row of [...listOf(model.get('rows')), ...listOf(model.get('tail'))].filter(isObject)) {
      card.model(String(row.run_id))?.add([row]);
    }
    card.refresh();
  };
  TRAITS.forEach(name => model.on(`change:${name}`, read));
  read();
  const dispose = () => {
    TRAITS.forEach(name => model.off(`change:${name}`, read));
    card.dispose();
  };
  if (!signal) {
    return dispose; // hosts older than anywidget 0.11
  }
  signal.addEventListener('abort', dispose, { once: true });
}

export default { render };
