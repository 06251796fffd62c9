/** The line above a run or a comparison: the way back to the list, and what can be done with them. */
import React from 'react';

import { trans } from '../words';
import { usePanel } from './context';

interface IHeadProps {
  runIds: readonly string[];
  /** Missing where the page stands in a tab of its own. */
  onBack?: () => void;
  children?: React.ReactNode;
}

export function Head({ runIds, onBack, children }: IHeadProps): React.JSX.Element {
  const { openTab } = usePanel();
  return (
    <div className="kj-detailHead">
      {onBack ? (
        <button type="button" className="kj-link" onClick={onBack}>
          {trans.__('‹ All runs')}
        </button>
      ) : null}
      {onBack ? <span className="kj-grow" /> : null}
      {onBack && openTab ? (
        <button type="button" className="kj-button" onClick={() => openTab(runIds)}>
          {trans.__('Open in a tab')}
        </button>
      ) : null}
      {children}
    </div>
  );
}
