/** The JupyterLab plugin of the panel: sidebar, tabs, commands, status bar, notifications. Works in Notebook 7, with what its shell has. */
import { type ILabShell, ILayoutRestorer, ILabShell as LabShellToken } from '@jupyterlab/application';
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette, InputDialog, MainAreaWidget } from '@jupyterlab/apputils';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStateDB } from '@jupyterlab/statedb';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator } from '@jupyterlab/translation';
import { LabIcon } from '@jupyterlab/ui-components';
import type { ReadonlyPartialJSONObject } from '@lumino/coreutils';

import { stateName } from '../format';
import { PanelState } from '../panelstate';
import { type IRun, type Verb, shortId } from '../run';
import { RunsModel } from '../runs';
import { verbsOf } from '../summary';
import { trans } from '../words';
import { Actions, VERBS, labelOf } from './actions';
import { DEFAULTS, type IPanelContext, type ISettings } from './context';
import { notebooksOf } from '../notebooks';
import { StatusItem, notifyEnds } from './status';
import { ComparePage, RunPage, Sidebar } from './widgets';

const ID = 'kafka-jupyter:panel';

export const runsIcon = new LabIcon({
  name: 'kafka-jupyter:runs',
  svgstr:
    '<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24"><g class="jp-icon3" fill="#616161">' +
    '<path d="M3 20h18v-1.6H4.6V4H3z"/><path d="M6 16.5c2-7.5 5-9 7.5-9S18 7 20.5 4.5l-1-1C17.4 5.6 16 6 13.500 6 9.500 6 6.500 9 4.800 15.500z"/>' +
    '<circle cx="19.500" cy="14.500" r="2.200"/></g></svg>'
});

function settingsOf(value: ReadonlyPartialJSONObject): ISettings {
  return {
    refresh: typeof value.refresh === 'number' ? value.refresh : DEFAULTS.refresh,
    rows: typeof value.rows === 'number' ? value.rows : DEFAULTS.rows,
    metric: typeof value.metric === 'string' ? value.metric.trim() : DEFAULTS.metric,
    notify: value.notify !== false
  };
}

export const panel: JupyterFrontEndPlugin<void> = {
  id: ID,
  description: 'The list of runs: a sidebar with details, comparison, workers and queue.',
  autoStart: true,
  requires: [ITranslator],
  optional: [LabShellToken, ILayoutRestorer, ICommandPalette, ISettingRegistry, IStateDB, IStatusBar],
  activate: (
    app: JupyterFrontEnd,
    _: ITranslator, // its words are in use before anything here speaks
    labShell: ILabShell | null,
    restorer: ILayoutRestorer | null,
    palette: ICommandPalette | null,
    registry: ISettingRegistry | null,
    keeper: IStateDB | null,
    statusBar: IStatusBar | null
  ) => {
    let settings = DEFAULTS;
    const model = new RunsModel(() => settings.rows);
    const actions = new Actions(model, notebooksOf(app));
    const state = new PanelState(keeper as IStateDB<ReadonlyPartialJSONObject> | null);
    const inTab = (runIds: readonly string[]) => {
      addTab(app, context, runIds);
      state.update({ open: '', compared: [] }); // once is enough
    };
    const openTab = labShell ? inTab : null;
    const context = (): IPanelContext => ({ model, state, actions, settings, openTab });

    const sidebar = new Sidebar(context);
    sidebar.id = 'kafka-jupyter-runs';
    sidebar.title.icon = runsIcon;
    sidebar.title.caption = trans.__('Kafka Runs');
    app.shell.add(sidebar, 'left', { rank: 350, type: 'Kafka Runs' });
    restorer?.add(sidebar, sidebar.id);

    const show = (change: Parameters<PanelState['update']>[0]) => {
      state.update({ open: '', compared: [], ...change });
      app.shell.activateById(sidebar.id);
    };
    addCommands(app, palette, model, actions, show);
    statusBar?.registerStatusItem(ID, { item: new StatusItem(model, () => show({ page: 'runs' })), align: 'left', rank: 50 });
    notifyEnds(
      model,
      () => settings.notify,
      run => show({ open: run.run_id })
    );
    void state.restore();
    model.follow();
    void registry?.load(ID).then(loaded => {
      const read = () => {
        const rows = settings.rows;
        settings = settingsOf(loaded.composite);
        sidebar.update();
        if (settings.rows > rows && model.loaded) {
          model.reload();
        }
      };
      loaded.changed.connect(read);
      read();
    });
  }
};

function addTab(app: JupyterFrontEnd, context: () => IPanelContext, runIds: readonly string[]): void {
  const id = `kafka-jupyter-tab-${runIds.join('-')}`;
  for (const widget of app.shell.widgets('main')) {
    if (widget.id === id) {
      app.shell.activateById(id);
      return;
    }
  }
  const content = runIds.length > 1 ? new ComparePage(context, runIds) : new RunPage(context, runIds[0]);
  const tab = new MainAreaWidget({ content });
  tab.id = id;
  tab.title.label = runIds.map(shortId).join(' | ');
  tab.title.icon = runsIcon;
  app.shell.add(tab, 'main');
  app.shell.activateById(id);
}

type Show = (change: Parameters<PanelState['update']>[0]) => void;

function addCommands(app: JupyterFrontEnd, palette: ICommandPalette | null, model: RunsModel, actions: Actions, show: Show): void {
  const category = trans.__('Kafka Runs');
  const add = (name: string, label: string, execute: () => void | Promise<void>) => {
    const command = `kafka-jupyter:${name}`;
    app.commands.addCommand(command, { label, execute });
    palette?.addItem({ command, category });
  };
  add('show-runs', trans.__('Show the Runs'), () => show({ page: 'runs' }));
  add('show-queue', trans.__('Show the Queue'), () => show({ page: 'queue' }));
  add('show-workers', trans.__('Show the Workers'), () => show({ page: 'workers' }));
  add('show-mine', trans.__('Show My Runs'), () => show({ page: 'runs', mine: true, text: '' }));
  add('show-run', trans.__('Show a Run…'), async () => {
    const run = await pick(model.runs, trans.__('Show a run'));
    if (run) {
      show({ open: run.run_id });
    }
  });
  const labels: Record<Verb, string> = {
    stop: trans.__('Stop a Run…'),
    pause: trans.__('Pause a Run…'),
    resume: trans.__('Resume a Run…'),
    cancel: trans.__('Cancel a Run…'),
    retry: trans.__('Retry a Run…')
  };
  for (const verb of VERBS) {
    add(`${verb}-run`, labels[verb], async () => {
      const run = await pick(
        model.runs.filter(each => verbsOf(each).includes(verb)),
        labelOf(verb)
      );
      if (run) {
        await actions.ask([run], verb);
      }
    });
  }
  add('set-rate', trans.__('Change the Learning Rate of a Run…'), async () => {
    const run = await pick(
      model.runs.filter(each => !each.terminal),
      trans.__('Change the learning rate')
    );
    if (run) {
      await actions.setRate(run);
    }
  });
}

/** The run that the person chooses; null for none. */
async function pick(runs: readonly IRun[], title: string): Promise<IRun | null> {
  const newest = [...runs].sort((a, b) => b.submitted_ms - a.submitted_ms).slice(0, 100);
  if (!newest.length) {
    await InputDialog.getBoolean({ title, label: trans.__('There is no run for which that can be asked now.'), value: true });
    return null;
  }
  const items = newest.map(run => `${run.name} ${run.run_id.slice(run.run_id.lastIndexOf('-') + 1)} (${stateName(run.state).toLowerCase()})`);
  const answer = await InputDialog.getItem({ title, items, okLabel: title });
  return answer.button.accept ? newest[items.indexOf(answer.value ?? '')] ?? null : null;
}
