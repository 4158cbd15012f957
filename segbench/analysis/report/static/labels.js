// Labels beside points and at the ends of lines, put where they hide neither each other nor a mark.
"use strict";
{
const AWAY = [13, 22, 34, 48, 64, 84];
const AROUND = [[0, -1], [0, 1], [1, 0], [-1, 0], [0.8, -0.8], [-0.8, -0.8], [0.8, 0.8], [-0.8, 0.8]];

// Centres of labels around points (pixels), null where there is no room; the first points choose first
SB.placeLabels = function (points, width, height, size = 11) {
  const taken = points.map(({ x, y }) => [x - 7, y - 7, x + 7, y + 7]);
  const apart = (box) => taken.every(([left, top, right, bottom]) => box[2] <= left || box[0] >= right || box[3] <= top || box[1] >= bottom);
  return points.map(({ x, y, text }) => {
    const half = SB.textWidth(text, size) / 2 + 3, rise = size * 0.75;
    for (const away of AWAY) {
      for (const [right, down] of AROUND) {
        const centre = [x + right * (away + (right ? half - 6 : 0)), y + down * away];
        const box = [centre[0] - half, centre[1] - rise, centre[0] + half, centre[1] + rise];
        if (box[0] < 0 || box[2] > width || box[1] < 0 || box[3] > height || !apart(box)) continue;
        taken.push(box);
        return { dx: centre[0] - x, dy: centre[1] - y, far: away > 22 };
      }
    }
    return null;
  });
};

// Heights of labels in a column, each near its own and none nearer to the next than apart
SB.spread = function (heights, apart, bottom) {
  const order = heights.map((height, n) => [height, n]).sort(([a], [b]) => a - b);
  const places = [];
  for (const [height] of order) places.push(Math.max(height, places.length ? places.at(-1) + apart : -Infinity));
  for (let n = places.length - 1, limit = bottom; n >= 0; n--, limit = places[n + 1] - apart) places[n] = Math.min(places[n], limit);
  const spread = [];
  order.forEach(([, n], place) => { spread[n] = places[place]; });
  return spread;
};

// Writes the labels of a drawn scatter plot; returns the names of those for which there was no room
SB.labelPoints = async function (box, labels) {
  const { xaxis, yaxis } = box._fullLayout;
  const points = labels.map((label) => ({ x: xaxis.d2p(label.x), y: yaxis.d2p(label.y), text: SB.cut(label.text) }));
  const placed = SB.placeLabels(points, xaxis._length, yaxis._length);
  const ink = SB.isDark() ? "#e8eaed" : "#1f2933", line = SB.isDark() ? "#8a94a0" : "#7b8794";
  const annotations = labels.flatMap((label, n) => (placed[n] ? [{
    x: xaxis.type === "log" ? Math.log10(label.x) : label.x, y: label.y, text: SB.plain(points[n].text),
    ax: placed[n].dx, ay: placed[n].dy, showarrow: true, arrowhead: 0, arrowwidth: 1, arrowcolor: placed[n].far ? line : "rgba(0,0,0,0)",
    standoff: 6, font: { size: 11, color: ink }, borderpad: 0,
  }] : []));
  await SB.annotate(box, annotations);
  return labels.filter((_, n) => !placed[n]).map((label) => label.text);
};

// Writes the names of lines at their right ends
SB.labelLines = async function (box, labels) {
  const { xaxis, yaxis } = box._fullLayout;
  const heights = SB.spread(labels.map((label) => yaxis.d2p(label.y)), 14, yaxis._length - 2);
  await SB.annotate(box, labels.map((label, n) => ({
    x: label.x, y: label.y, text: SB.plain(SB.cut(label.text, 18)), ax: 14, ay: heights[n] - yaxis.d2p(label.y), xanchor: "left", showarrow: true,
    arrowhead: 0, arrowwidth: 1, arrowcolor: label.colour, standoff: 5, font: { size: 11, color: SB.isDark() ? "#e8eaed" : "#1f2933" }, borderpad: 0,
  })));
};

// Annotations widen an axis that finds its own range, and would be in the wrong places on it: it stays as it is
SB.annotate = function (box, annotations) {
  const { xaxis, yaxis } = box._fullLayout;
  return Plotly.relayout(box, { annotations, "xaxis.range": [...xaxis.range], "yaxis.range": [...yaxis.range] });
};
}
