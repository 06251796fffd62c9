/** The panel and its pages as widgets of the application. What nobody sees is not drawn. */
import { ReactWidget } from '@jupyterlab/ui-components';
import type { Message } from '@lumino/messaging';
import React from 'react';

import { App } from './app';
import { Compare } from './compare';
import { type IPanelContext, PanelContext } from './context';
import { RunDetail } from './detail';

abstract class Page extends ReactWidget {
  constructor(protected readonly _context: () => IPanelContext) {
    super();
    this.addClass('kj-Panel');
  }

  protected abstract content(): React.JSX.Element;

  render(): React.JSX.Element {
    if (!this.isVisible) {
      return <></>;
    }
    return <PanelContext.Provider value={this._context()}>{this.content()}</PanelContext.Provider>;
  }

  protected onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this.update();
  }

  protected onAfterHide(message: Message): void {
    super.onAfterHide(message);
    this.update();
  }
}

export class Sidebar extends Page {
  protected onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this._context().model.hurry();
  }

  protected content(): React.JSX.Element {
    return <App />;
  }
}

/** A tab of the main area. */
export class RunPage extends Page {
  constructor(
    context: () => IPanelContext,
    readonly runId: string
  ) {
    super(context);
    this.addClass('kj-mod-main');
  }

  protected content(): React.JSX.Element {
    return <RunDetail runId={this.runId} />;
  }
}

export class ComparePage extends Page {
  constructor(
    context: () => IPanelContext,
    readonly runIds: readonly string[]
  ) {
    super(context);
    this.addClass('kj-mod-main');
  }

  protected content(): React.JSX.Element {
    return <Compare runIds={this.runIds} />;
  }
}
