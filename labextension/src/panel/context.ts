/** What every part of the panel is given, and how it redraws: not more often than the settings say. */
import { createContext, useCallback, useContext, useEffect, useReducer, useSyncExternalStore } from 'react';

import { TICK } from '../pace';
import type { PanelState } from '../panelstate';
import type { RunsModel } from '../runs';
import type { Actions } from './actions';

export interface ISettings {
  /** ms between two redraws. */
  refresh: number;
  /** Runs that are loaded. */
  rows: number;
  /** The metric shown; empty: the one that each run is judged by. */
  metric: string;
  notify: boolean;
}

export const DEFAULTS: ISettings = { refresh: 250, rows: 200, metric: '', notify: true };
const FASTEST = 250; // ms; nobody reads faster

export interface IPanelContext {
  model: RunsModel;
  state: PanelState;
  actions: Actions;
  settings: ISettings;
  /** Opens runs in a tab of the main area; null where the shell has none (Notebook 7). */
  openTab: ((runIds: readonly string[]) => void) | null;
}

export const PanelContext = createContext<IPanelContext | null>(null);

export function usePanel(): IPanelContext {
  const found = useContext(PanelContext);
  if (!found) {
    throw new Error('A part of the panel stands outside of it');
  }
  return found;
}

type Listen = (listener: () => void) => () => void;

/** Redraws the component after news, at most once in `refresh` ms; `alive`: once a second without news too. */
export function useNews(listen: Listen, refresh: number, alive: boolean): void {
  const [, redraw] = useReducer((count: number) => count + 1, 0);
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let last = 0;
    const draw = () => {
      timer = undefined;
      last = Date.now();
      redraw();
    };
    const soon = () => {
      timer ??= setTimeout(draw, Math.max(0, last + Math.max(FASTEST, refresh) - Date.now()));
    };
    const leave = listen(soon);
    soon(); // an effect runs some time after the picture: what was told in between nobody heard
    const ticker = alive ? setInterval(soon, TICK) : undefined;
    return () => {
      clearTimeout(timer);
      clearInterval(ticker);
      leave();
    };
  }, [listen, refresh, alive]);
}

/** Redraws at once: what a person does must be seen. */
export function useState_(state: PanelState): PanelState['now'] {
  const listen = useCallback((listener: () => void) => state.listen(listener), [state]);
  return useSyncExternalStore(listen, () => state.now);
}
