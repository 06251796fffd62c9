/** What a chart is, and the small one without a library: the widget's code is saved into every notebook that shows it. */
import type { ICurves } from './summary';

export const HEIGHT = 96;

export type Color = (name: string, fallback: string) => string;

export interface IChart {
  draw(picture: ICurves, width: number): void;
  /** The theme has changed. */
  recolor(): void;
  dispose(): void;
}

export type ChartFactory = (host: HTMLElement, color: Color) => IChart;

/** Colours for several runs in one picture, and dashes, so that colour is not the only sign: light theme, dark theme, pattern. */
export const HUES: readonly [string, string, number[]][] = [
  ['#1565c0', '#64b5f6', []],
  ['#b25600', '#ffb74d', [6, 3]],
  ['#2e7d32', '#81c784', [2, 2]],
  ['#8e24aa', '#ce93d8', [8, 3, 2, 3]],
  ['#c62828', '#ef9a9a', [10, 4]],
  ['#00695c', '#4db6ac', [4, 2, 1, 2]],
  ['#5d4037', '#bcaaa4', [1, 3]],
  ['#455a64', '#b0bec5', [12, 3, 3, 3]]
];

const SVG = 'http://www.w3.org/2000/svg';
const LEFT = 38; // px for the labels of the y axis
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 18;

function shape(tag: string, parent: Element, attributes: Record<string, string | number>): Element {
  const element = document.createElementNS(SVG, tag);
  Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, String(value)));
  parent.appendChild(element);
  return element;
}

/** Round steps of 1, 2 or 5 · 10ⁿ: at most `parts` of them between low and high. */
export function ticks(low: number, high: number, parts: number): number[] {
  const rough = (high - low) / parts || Math.abs(high) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5, 10].find(m => m * power >= rough * (1 - 1e-9)) ?? 10);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

export function tickLabel(value: number): string {
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(0).replace('e+', 'e') : String(Number(value.toPrecision(4)));
}

/** Lowest and highest; a loop, because there is a limit to how many arguments `Math.min` takes. */
export function range(values: readonly number[]): [number, number] {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return low === high ? [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2] : [low, high];
}

/** Lines in SVG. Their colours come from CSS, so a change of the theme needs no redraw. */
export const svgChart: ChartFactory = host => {
  const svg = shape('svg', host, { class: 'kj-Svg', width: '100%', height: HEIGHT, 'aria-hidden': 'true' });
  return {
    draw: ({ x, curves }, width) => {
      svg.replaceChildren();
      const values = curves.flatMap(c => c.values).filter((v): v is number => typeof v === 'number');
      if (!values.length) {
        return;
      }
      const [low, high] = range(values);
      const [x0, x1] = [x[0], Math.max(x[x.length - 1], x[0] + 1)];
      const px = (v: number) => LEFT + ((width - LEFT - RIGHT) * (v - x0)) / (x1 - x0);
      const py = (v: number) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * (v - low)) / (high - low);
      for (const tick of ticks(low, high, 3)) {
        shape('path', svg, { class: 'kj-Svg-grid', d: `M${LEFT} ${py(tick)}H${width - RIGHT}` });
        shape('text', svg, { x: LEFT - 6, y: py(tick) + 3.5, 'text-anchor': 'end' }).textContent = tickLabel(tick);
      }
      for (const tick of ticks(x0, x1, 5).filter(Number.isInteger)) {
        shape('text', svg, { x: px(tick), y: HEIGHT - 4, 'text-anchor': 'middle' }).textContent = tickLabel(tick);
      }
      for (const curve of curves) {
        let pen = 'M';
        const steps = curve.values.map((v, i) => {
          if (typeof v !== 'number') {
            pen = v === null ? 'M' : pen;
            return '';
          }
          const step = `${pen}${px(x[i]).toFixed(1)} ${py(v).toFixed(1)}`;
          pen = 'L';
          return step;
        });
        shape('path', svg, { class: curve.dashed ? 'kj-Svg-line kj-mod-dashed' : 'kj-Svg-line', d: steps.join('') });
      }
    },
    recolor: () => undefined,
    dispose: () => svg.remove()
  };
};
