/** What stands in place of a list: why there is nothing to see, and what to do next. */
import React from 'react';

import type { Standing } from '../runs';
import { trans } from '../words';
import { usePanel } from './context';

interface IText {
  title: string;
  text: string;
  command?: string;
}

/** `said`: by the server. */
function textOf(standing: Standing, said: string): IText {
  switch (standing) {
    case 'off':
      return {
        title: trans.__('No runs from this server'),
        text: trans.__('The server extension of kafka_jupyter does not answer. Enable it and restart the server:'),
        command: 'jupyter server extension enable kafka_jupyter'
      };
    case 'refused':
      return {
        title: trans.__('Not allowed'),
        text: trans.__('This server does not let you see its runs. Log in again, or ask who operates it. It said: %1', said || '403')
      };
    case 'no-kafka':
      return {
        title: trans.__('No Kafka'),
        text: said || trans.__('No Kafka answers. A local one is started by:'),
        command: 'kafka-jupyter up'
      };
    case 'unusable':
      return { title: trans.__('Kafka cannot be used'), text: said, command: 'kafka-jupyter doctor' };
    case 'reconnecting':
      return {
        title: trans.__('Reconnecting…'),
        text: said || trans.__('The server does not answer. The list comes by itself as soon as it does.')
      };
    case 'loading':
      return { title: trans.__('Loading…'), text: '' };
    case 'live':
      return {
        title: trans.__('No runs yet'),
        text: trans.__('Put this above a cell that calls model.fit, and run the cell:'),
        command: '%%kafka_train my-first-run'
      };
  }
}

export function Nothing({ filtered }: { filtered: boolean }): React.JSX.Element {
  const { model, state } = usePanel();
  if (filtered) {
    return (
      <div className="kj-nothing">
        <b>{trans.__('No run matches')}</b>
        <p>{trans.__('Words are looked for in name, notebook, owner and labels; state:failed and the like narrow it down.')}</p>
        <button type="button" className="kj-button" onClick={() => state.update({ text: '', mine: false })}>
          {trans.__('Show all runs')}
        </button>
      </div>
    );
  }
  const { title, text, command } = textOf(model.standing, model.trouble);
  return (
    <div className="kj-nothing" data-standing={model.standing}>
      <b>{title}</b>
      {text ? <p>{text}</p> : null}
      {command ? <code>{command}</code> : null}
      {model.standing === 'live' || model.standing === 'loading' ? null : (
        <button type="button" className="kj-button" onClick={() => model.hurry()}>
          {trans.__('Try again')}
        </button>
      )}
    </div>
  );
}
