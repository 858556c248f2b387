'use strict';

/*
 * A histogram over a logarithmic axis of time, as SVG. `bins` is a list of [place, count]; place p holds the times
 * from 10^(p / perDecade) ns on. `quantiles` is a list of [name, ns].
 */
function drawHistogram({ bins, perDecade, quantiles, title, tick }) {
  const WIDTH = 460;
  const HEIGHT = 150;
  const LEFT = 34;
  const BOTTOM = 118;
  const TOP = 22;
  const nanoseconds = (place) => 10 ** (place / perDecade);
  const decade = (place) => place / perDecade;
  const low = Math.floor(decade(bins[0][0]));
  const high = Math.max(Math.ceil(decade(bins[bins.length - 1][0] + 1)), low + 1);
  const x = (decades) => LEFT + ((decades - low) / (high - low)) * (WIDTH - LEFT - 4);
  const most = Math.max(...bins.map(([, count]) => count));
  const y = (count) => BOTTOM - (count / most) * (BOTTOM - TOP);

  const picture = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': title });
  for (const [count, text] of [[most, most.toLocaleString('en')], [0, '0']]) {
    picture.append(
      svg('line', { class: 'rule', x1: LEFT, x2: WIDTH - 4, y1: y(count), y2: y(count) }),
      svg('text', { x: LEFT - 4, y: y(count) + 3, 'text-anchor': 'end' }, text),
    );
  }
  for (let at = low; at <= high; at += 1) {
    picture.append(
      svg('line', { class: 'rule', x1: x(at), x2: x(at), y1: TOP, y2: BOTTOM + 4 }),
      svg('text', { x: x(at), y: BOTTOM + 15, 'text-anchor': 'middle' }, tick(10 ** at)),
    );
  }
  for (const [place, count] of bins) {
    const [left, right] = [x(decade(place)), x(decade(place + 1))];
    // Even one time in a million is visible.
    const top = Math.min(y(count), BOTTOM - 1);
    const range = `${tick(nanoseconds(place))} to ${tick(nanoseconds(place + 1))}: ${count.toLocaleString('en')}`;
    picture.append(
      svg(
        'g',
        { class: 'bin' },
        svg('title', {}, range),
        svg('rect', { class: 'hit', x: left, y: TOP, width: right - left, height: BOTTOM - TOP }),
        svg('rect', { x: left + 0.5, y: top, width: Math.max(1, right - left - 1), height: BOTTOM - top }),
      ),
    );
  }
  // Quantiles whose names do not fit beside each other share a name.
  const named = [];
  for (const [name, ns] of quantiles) {
    const at = x(Math.log10(Math.max(1, ns)));
    picture.append(svg('line', { class: 'quantile', x1: at, x2: at, y1: TOP - 4, y2: BOTTOM }));
    const before = named[named.length - 1];
    if (before && at - before.at < 38) before.last = name;
    else named.push({ at, first: name, last: name });
  }
  for (const { at, first, last } of named) {
    const text = first === last ? first : `${first} – ${last}`;
    // To the right of its place where there is room, so that it does not touch the one before.
    const [anchor, by] = at > WIDTH - 60 ? ['end', 9] : ['start', -9];
    picture.append(svg('text', { x: at + by, y: TOP - 8, 'text-anchor': anchor }, text));
  }
  return picture;
}
