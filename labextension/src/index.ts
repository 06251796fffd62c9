/** The JupyterLab plugins: the page's stream gets the application's own requests, and saved runs are rendered live, without a kernel. */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { URLExt } from '@jupyterlab/coreutils';
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import { ServerConnection } from '@jupyterlab/services';
import { ITranslator } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';

import { RunCard } from './card';
import { panel } from './panel/plugin';
import { isObject } from './rows';
import { getHub } from './stream';
import { uplotChart } from './uplotchart';
import { useWords } from './words';

export const MIME = 'application/vnd.kafka-jupyter.run+json';

/** ipywidgets registers its view with rank -10 on every notebook, and the lower one wins: ours needs no kernel. */
const RANK = -20;

class RunRenderer extends Widget implements IRenderMime.IRenderer {
  constructor() {
    super();
    this.addClass('kj-Renderer');
  }

  /** Called again at every update of the output: the card stays, so nothing flickers. */
  renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    const data: unknown = model.data[MIME];
    const entries = isObject(data) && Array.isArray(data.runs) ? data.runs.filter(isObject) : [];
    const runs = entries.filter((entry): entry is typeof entry & { run_id: string } => typeof entry.run_id === 'string');
    const plain = model.data['text/plain'];
    this._card ??= new RunCard(this.node, { source: 'renderer', saved: typeof plain === 'string' ? plain : '' });
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

  private _card: RunCard | null = null;
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
  activate: (_: JupyterFrontEnd, registry: IRenderMimeRegistry) => {
    registry.addFactory({ safe: true, mimeTypes: [MIME], createRenderer: () => new RunRenderer() }, RANK);
  }
};

export default [stream, renderer, panel];
