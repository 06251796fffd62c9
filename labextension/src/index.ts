/** The JupyterLab plugins: the page's stream gets the application's own requests, and saved runs are rendered live, without a kernel. */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { URLExt } from '@jupyterlab/coreutils';
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import { ServerConnection } from '@jupyterlab/services';
import { ITranslator } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';

import { askOutput } from './ask';
import { RunCard } from './card';
import { placeOf, replaceOutputs } from './notebooks';
import { panel } from './panel/plugin';
import { type Json, isObject } from './rows';
import { getHub } from './stream';
import { uplotChart } from './uplotchart';
import { trans, useWords } from './words';

export const MIME = 'application/vnd.kafka-jupyter.run+json';

/** ipywidgets registers its view with rank -10 on every notebook, and the lower one wins: ours needs no kernel. */
const RANK = -20;

/** Is this output one of ours, of exactly these runs? */
function shows(data: unknown, runIds: readonly string[]): boolean {
  return isObject(data) && runsOf(data[MIME]).join('\n') === runIds.join('\n');
}

function entriesOf(bundle: unknown): (Json & { run_id: string })[] {
  const entries = isObject(bundle) && Array.isArray(bundle.runs) ? bundle.runs.filter(isObject) : [];
  return entries.filter((entry): entry is Json & { run_id: string } => typeof entry.run_id === 'string');
}

function runsOf(bundle: unknown): string[] {
  return entriesOf(bundle).map(entry => entry.run_id);
}

class RunRenderer extends Widget implements IRenderMime.IRenderer {
  constructor(private readonly _app: JupyterFrontEnd) {
    super();
    this.addClass('kj-Renderer');
  }

  /** Called again at every update of the output: the card stays, so nothing flickers. */
  renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    const runs = entriesOf(model.data[MIME]);
    this._held = runs.length > 0 && runs.every(run => isObject(run.state) && run.state.terminal === true);
    const plain = model.data['text/plain'];
    this._card ??= new RunCard(this.node, {
      source: 'renderer',
      saved: typeof plain === 'string' ? plain : '',
      keeper: { lacks: () => !this._held && !!placeOf(this._app, this.node), keep: runIds => this._keep(runIds, runsOf(model.data[MIME])) }
    });
    this._card.show(runs.map(run => run.run_id));
    for (const run of runs) {
      const shown = this._card.model(run.run_id);
      shown?.put(run.state);
      shown?.add(run.rows);
    }
    return Promise.resolve();
  }

  dispose(): void {
    if (!this.isDisposed) {
      this._card?.dispose();
      super.dispose();
    }
  }

  /** Of runs of which some are retries of those that the output names: all of them, in the order of the card. */
  private async _keep(runIds: readonly string[], named: readonly string[]): Promise<void> {
    const place = placeOf(this._app, this.node);
    if (!place) {
      throw new Error(trans.__('this is no notebook'));
    }
    const data = await askOutput(getHub(), runIds);
    if (!(await replaceOutputs(place, output => shows(output, named), data))) {
      throw new Error(trans.__('the output has changed meanwhile'));
    }
  }

  private _card: RunCard | null = null;
  private _held = false; // does the notebook hold the end?
}

const stream: JupyterFrontEndPlugin<void> = {
  id: 'kafka-jupyter:stream',
  description: 'Connects the page-wide stream of runs to the server settings of this application.',
  autoStart: true,
  requires: [ITranslator],
  activate: (app: JupyterFrontEnd, translator: ITranslator) => {
    useWords(translator.load('kafka_jupyter'));
    const settings = app.serviceManager.serverSettings;
    const hub = getHub();
    hub.chart = uplotChart;
    hub.useTransport({
      kind: 'lab',
      server: new URL(settings.baseUrl, location.href).href,
      request: (path, init) => ServerConnection.makeRequest(URLExt.join(settings.baseUrl, path), init, settings)
    });
  }
};

/** autoStart, because every notebook uses a clone of the registry as it is when the notebook opens. */
const renderer: JupyterFrontEndPlugin<void> = {
  id: 'kafka-jupyter:renderer',
  description: 'Renders the runs of a cell live, from the log, without a kernel.',
  autoStart: true,
  requires: [IRenderMimeRegistry],
  activate: (app: JupyterFrontEnd, registry: IRenderMimeRegistry) => {
    registry.addFactory({ safe: true, mimeTypes: [MIME], createRenderer: () => new RunRenderer(app) }, RANK);
  }
};

export default [stream, renderer, panel];
