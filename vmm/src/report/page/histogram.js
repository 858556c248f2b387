'use strict';

/*
 * A histogram over a logarithmic axis of time, as SVG that is `width` pixels wide and is not scaled, so that its text
 * is as large in each. `bins` is a list of [place, count]; place p holds the times from 10^(p / perDecade) ns on.
 * `quantiles` is a list of [name, ns]. `unitOf(times)` returns the unit in which all times of the axis are.
 */
function drawHistogram({ bins, perDecade, quantiles, title, width, unitOf }) {
  const HEIGHT = 150;
  const BOTTOM = 118;
  const TOP = 22;
  // About the width of a letter, of ten pixels in height; and the gap between two names.
  const LETTER = 6;
  const GAP = 8;
  const letters = (text) => text.length * LETTER;
  const most = Math.max(...bins.map(([, count]) => count));
  const left = 8 + letters(most.toLocaleString('en'));
  const right = width - 4;
  const nanoseconds = (place) => 10 ** (place / perDecade);
  const decade = (place) => place / perDecade;
  const low = Math.floor(decade(bins[0][0]));
  const high = Math.max(Math.ceil(decade(bins[bins.length - 1][0] + 1)), low + 1);
  const x = (decades) => left + ((decades - low) / (high - low)) * (right - left);
  const y = (count) => BOTTOM - (count / most) * (BOTTOM - TOP);
  const unit = unitOf([10 ** low, 10 ** ((low + high) / 2), 10 ** high]);

  const picture = svg('svg', { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: 'img', 'aria-label': title });
  for (const [count, text] of [[most, most.toLocaleString('en')], [0, '0']]) {
    picture.append(
      svg('line', { class: 'rule', x1: left, x2: right, y1: y(count), y2: y(count) }),
      svg('text', { x: left - 4, y: y(count) + 3, 'text-anchor': 'end' }, text),
    );
  }
  // Of many powers of ten, every second has a name, or every third. The names at the edges do not stand out.
  const widest = Math.max(letters(unit.plain(10 ** low)), letters(unit.plain(10 ** high))) + GAP;
  const every = Math.max(1, Math.ceil((1.5 * widest * (high - low)) / (right - left)));
  for (let at = low; at <= high; at += 1) {
    picture.append(svg('line', { class: 'rule', x1: x(at), x2: x(at), y1: TOP, y2: BOTTOM + 4 }));
    if ((at - low) % every !== 0) continue;
    picture.append(svg('text', { x: x(at), y: BOTTOM + 15, 'text-anchor': at === low ? 'start' : at === high ? 'end' : 'middle' }, unit.plain(10 ** at)));
  }
  for (const [place, count] of bins) {
    const [from, to] = [x(decade(place)), x(decade(place + 1))];
    // Even one time in a million is visible.
    const top = Math.min(y(count), BOTTOM - 1);
    const range = `${unit.plain(nanoseconds(place))} to ${unit.plain(nanoseconds(place + 1))}: ${count.toLocaleString('en')}`;
    picture.append(
      svg(
        'g',
        { class: 'bin' },
        svg('title', {}, range),
        svg('rect', { class: 'hit', x: from, y: TOP, width: to - from, height: BOTTOM - TOP }),
        svg('rect', { x: from + 0.5, y: top, width: Math.max(1, to - from - 1), height: BOTTOM - top }),
      ),
    );
  }
  // Quantiles whose names do not fit beside each other share a name. From the right, so that the room that the
  // names take is known: a shared name begins where its first quantile is, or as far to the left as it has to.
  const named = [];
  for (const [name, ns] of [...quantiles].reverse()) {
    const at = Math.min(x(Math.log10(Math.max(1, ns))), right);
    picture.append(svg('line', { class: 'quantile', x1: at, x2: at, y1: TOP - 4, y2: BOTTOM }));
    const place = (first, last) => {
      const text = first === last ? first : `${first} – ${last}`;
      return { first, last, text, from: Math.min(at - letters(name) / 2, width - letters(text)) };
    };
    const own = place(name, name);
    const next = named[named.length - 1];
    if (next && own.from + letters(own.text) + GAP > next.from) named[named.length - 1] = place(name, next.last);
    else named.push(own);
  }
  for (const { text, from } of named) picture.append(svg('text', { class: 'name', x: from, y: TOP - 9 }, text));
  return picture;
}
