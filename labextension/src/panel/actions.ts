/** What a person does with runs from the panel: asked of the server one by one; what did not get through is said in the panel. */
import { Dialog, InputDialog, showDialog } from '@jupyterlab/apputils';

import { Refused, ask } from '../ask';
import { askDetails } from '../details';
import { copy } from '../dom';
import { type IRun, type Verb, shortId } from '../run';
import type { RunsModel } from '../runs';
import { type StreamHub, getHub } from '../stream';
import { verbsOf } from '../summary';
import { trans } from '../words';
import type { INotebooks } from '../notebooks';

/** In the order of the buttons. */
export const VERBS: readonly Verb[] = ['stop', 'pause', 'resume', 'cancel', 'retry'];

export function labelOf(verb: Verb): string {
  return {
    stop: trans.__('Stop'),
    pause: trans.__('Pause'),
    resume: trans.__('Resume'),
    cancel: trans.__('Cancel'),
    retry: trans.__('Retry')
  }[verb];
}

/** May this be asked of at least one of them? */
export function canAsk(runs: readonly IRun[], verb: Verb): boolean {
  return runs.some(run => verbsOf(run).includes(verb));
}

export class Actions {
  /** What went wrong last, for the panel to show; empty if nothing did. */
  trouble = '';
  busy = false;

  constructor(
    private readonly _model: RunsModel,
    readonly notebooks: INotebooks,
    private readonly _hub: StreamHub = getHub()
  ) {}

  listen(listener: () => void): () => void {
    this._listeners.add(listener);
    return () => this._listeners.delete(listener);
  }

  dismiss(): void {
    this._say('');
  }

  /** Asks it of those that it can be asked of; where work is lost or runs are other people's, the person is asked first. */
  async ask(runs: readonly IRun[], verb: Verb): Promise<void> {
    const meant = runs.filter(run => verbsOf(run).includes(verb));
    const others = meant.filter(run => run.owner && this._model.me && run.owner !== this._model.me);
    if (!meant.length || !(await this._sure(meant, others, verb))) {
      return;
    }
    await this._each(meant, run => ask(this._hub, run.run_id, verb, { force: others.includes(run) }), labelOf(verb));
  }

  async setRate(run: IRun): Promise<void> {
    const now = run.applied?.settings.learning_rate;
    const answer = await InputDialog.getText({
      title: trans.__('Change the learning rate of %1', run.name),
      label: trans.__('It holds from the end of the next batch.'),
      placeholder: '0.0001',
      text: typeof now === 'number' ? String(now) : '',
      okLabel: trans.__('Change')
    });
    const text = answer.value?.trim() ?? '';
    if (!answer.button.accept || !text) {
      return;
    }
    const rate = Number(text);
    if (!Number.isFinite(rate) || rate < 0) {
      this._say(trans.__('%1 is no learning rate: write a number that is at least 0, for example 0.0001.', text.slice(0, 40)));
      return;
    }
    const force = !!run.owner && run.owner !== this._model.me && (await this._sure([run], [run], 'stop'));
    await this._each([run], () => ask(this._hub, run.run_id, 'settings', { learning_rate: rate, force }), trans.__('Change'));
  }

  async openNotebook(run: IRun): Promise<void> {
    try {
      this._say('');
      const { path } = await askDetails(this._hub, run.run_id);
      if (!path) {
        throw new Error(trans.__('it does not lie in the folder of this server'));
      }
      await this.notebooks.open(path, run.cell);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this._say(trans.__('%1 could not be opened: %2.', run.notebook, why));
    }
  }

  async copyCommand(run: IRun): Promise<void> {
    const command = `%kafka_attach ${run.run_id}`;
    this._say((await copy(command)) ? '' : trans.__('This page may not copy; type %1', command));
  }

  private async _each(runs: readonly IRun[], send: (run: IRun) => Promise<unknown>, label: string): Promise<void> {
    this.busy = true;
    this._say('');
    const failures: string[] = [];
    for (const run of runs) {
      try {
        await send(run);
      } catch (error) {
        const why = error instanceof Refused || error instanceof Error ? error.message : String(error);
        failures.push(`${shortId(run.run_id)}: ${why}`);
      }
    }
    this.busy = false;
    const told = failures.slice(0, 3).join(' ');
    const more = failures.length > 3 ? trans._n('And %1 more.', 'And %1 more.', failures.length - 3) : '';
    this._say(failures.length ? `${trans.__('%1 did not get through.', label)} ${told} ${more}`.trim() : '');
  }

  private async _sure(runs: readonly IRun[], others: readonly IRun[], verb: Verb): Promise<boolean> {
    if (!others.length && (verb !== 'cancel' || runs.length === 1)) {
      return true;
    }
    const owners = [...new Set(others.map(run => run.owner))].slice(0, 3).join(', ');
    const label = labelOf(verb);
    const body = [
      trans._n('%2: one run.', '%2: %1 runs.', runs.length, label),
      others.length ? trans.__('They belong to others: %1.', owners) : '',
      verb === 'cancel' ? trans.__('What they have trained since their last result is lost.') : ''
    ];
    const answer = await showDialog({
      title: trans.__('Are you sure?'),
      body: body.filter(Boolean).join(' '),
      buttons: [Dialog.cancelButton({ label: trans.__('Leave it') }), Dialog.warnButton({ label })]
    });
    return answer.button.accept;
  }

  private _say(trouble: string): void {
    this.trouble = trouble;
    [...this._listeners].forEach(listener => listener());
  }

  private _listeners = new Set<() => void>();
}
