/** The large chart: uPlot. Only the plugin imports it. */
import uPlot from 'uplot';

import { type ChartFactory, HEIGHT, HUES, tickLabel } from './chart';
import type { ICurve } from './summary';

export const uplotChart: ChartFactory = (host, color) => {
  // functions, not values: uPlot asks again at every redraw, so a change of the theme needs no new chart
  const faint = () => color('--kj-faint', '#757575');
  const grid = () => color('--kj-line', '#e0e0e0');
  const solid = () => color('--kj-brand', '#1976d2');
  const dashed = () => color('--kj-warn', '#b26a00');
  const stroke = (curve: ICurve) => {
    if (curve.hue === undefined) {
      return curve.dashed ? dashed : solid;
    }
    const [light, dark] = HUES[curve.hue % HUES.length];
    return () => (document.body.dataset.jpThemeLight === 'false' ? dark : light);
  };
  const dash = (curve: ICurve) => (curve.hue === undefined ? (curve.dashed ? [4, 3] : []) : HUES[curve.hue % HUES.length][2]);
  const axis: uPlot.Axis = {
    stroke: faint,
    font: '10px system-ui, sans-serif',
    grid: { stroke: grid, width: 1 },
    ticks: { show: false },
    gap: 4
  };
  let plot: uPlot | null = null;
  let shown = '';

  return {
    draw: ({ title, x, curves, height = HEIGHT }, width) => {
      const data: uPlot.AlignedData = [x, ...curves.map(c => c.values)];
      const now = [title, ...curves.map(c => c.name)].join('\n');
      if (plot && now === shown) {
        if (plot.width !== width) {
          plot.setSize({ width, height });
        }
        plot.setData(data);
        return;
      }
      plot?.destroy();
      shown = now;
      const points = { show: (chart: uPlot) => chart.data[0].length < 2, size: 5 }; // of a single point there is no line
      plot = new uPlot(
        {
          width,
          height,
          padding: [6, 8, 0, 0],
          legend: { show: false },
          cursor: { show: false },
          scales: { x: { time: false, range: (_, low, high) => [low, Math.max(high, low + 1)] } },
          axes: [
            { ...axis, grid: { show: false }, size: 18, space: 50, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000] },
            { ...axis, size: 38, space: 16, values: (_, values) => values.map(tickLabel) }
          ],
          series: [
            {},
            ...curves.map(c => ({
              label: c.name,
              width: 1.6,
              points,
              stroke: stroke(c),
              dash: dash(c)
            }))
          ]
        },
        data,
        host
      );
    },
    recolor: () => plot?.redraw(false),
    dispose: () => plot?.destroy()
  };
};
