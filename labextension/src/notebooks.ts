/**
 * Notebooks of the application, as far as the panel and the card need them: opening one at a cell, and putting results into one.
 *
 * Written against the shape of JupyterLab's notebook widgets, not against @jupyterlab/notebook: that package would bring an editor and
 * a language server along at build time for four properties. Whatever has not that shape is no notebook.
 */
import type { JupyterFrontEnd } from '@jupyterlab/application';
import { PathExt } from '@jupyterlab/coreutils';
import type { Widget } from '@lumino/widgets';

import { type Json, isObject } from './rows';

export interface INotebooks {
  /** Opens the notebook, with the cell in front if it is there. Raises if there is no such file. */
  open(path: string, cell: string): Promise<void>;
}

interface IOutputs {
  length: number;
  toJSON(): Json[];
  fromJSON(outputs: Json[]): void;
}

interface ICell extends Widget {
  model: { id: string; outputs?: IOutputs };
}

interface IContent extends Widget {
  widgets: readonly ICell[];
  activeCellIndex: number;
  scrollToCell?(cell: ICell, align?: string): Promise<void>;
}

interface INotebook extends Widget {
  content: IContent;
  context: { path: string; ready: Promise<void>; save(): Promise<void> };
}

function isNotebook(widget: unknown): widget is INotebook {
  const found = widget as Partial<INotebook> | null | undefined;
  return !!found?.content && 'activeCellIndex' in found.content && typeof found.context?.save === 'function';
}

export function notebooksOf(app: JupyterFrontEnd): INotebooks {
  return {
    open: async (path, cell) => {
      const opened: unknown = await app.commands.execute('docmanager:open', { path });
      if (!opened) {
        return; // Notebook 7 opens it in a page of its own
      }
      if (!isNotebook(opened)) {
        throw new Error(`${PathExt.basename(path)} is no notebook`);
      }
      await opened.context.ready;
      app.shell.activateById(opened.id);
      const index = opened.content.widgets.findIndex(each => each.model.id === cell);
      if (index >= 0) {
        opened.content.activeCellIndex = index;
        await opened.content.scrollToCell?.(opened.content.widgets[index], 'center');
      }
    }
  };
}

/** Where an output stands: the notebook, and the outputs of its cell. */
export interface IPlaceInNotebook {
  notebook: INotebook;
  outputs: IOutputs;
}

/** The cell that shows `node`, in a notebook of this application. */
export function placeOf(app: JupyterFrontEnd, node: HTMLElement): IPlaceInNotebook | null {
  for (const widget of app.shell.widgets('main')) {
    if (isNotebook(widget) && widget.node.contains(node)) {
      const cell = widget.content.widgets.find(each => each.node.contains(node));
      return cell?.model.outputs ? { notebook: widget, outputs: cell.model.outputs } : null;
    }
  }
  return null;
}

/** Replaces the outputs that `is` says with `data`, and saves the notebook. How many were replaced. */
export async function replaceOutputs(place: IPlaceInNotebook, is: (data: Json) => boolean, data: Json): Promise<number> {
  let count = 0;
  const outputs = place.outputs.toJSON().map(output => {
    if (!isObject(output.data) || !is(output.data)) {
      return output;
    }
    count += 1;
    return { ...output, data };
  });
  if (count) {
    place.outputs.fromJSON(outputs);
    await place.notebook.context.save();
  }
  return count;
}
