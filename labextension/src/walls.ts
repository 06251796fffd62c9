/** What a worker keeps its trainings from. */
import type { IWorker } from './runs';
import { trans } from './words';

/** In words; what it cannot keep from them is said where it runs the code of others. */
export function walls(worker: IWorker): string {
  const names: [string, string][] = [
    ['network', trans.__('the network')],
    ['secrets', trans.__('keys')],
    ['privileges', trans.__('more rights')],
    ['memory', trans.__('all memory')]
  ];
  const holds = ([part]: [string, string]): boolean => worker.cage.includes(part) && !(part === 'network' && worker.network);
  const said = (which: [string, string][]): string => which.map(([, name]) => name).join(', ');
  const [kept, open] = [said(names.filter(holds)), said(names.filter(part => !holds(part)))];
  const code = worker.code ? (open ? trans.__('runs code, not kept from: %1', open) : trans.__('runs code')) : '';
  return [code, kept ? trans.__('keeps trainings from: %1', kept) : ''].filter(Boolean).join(' · ');
}
