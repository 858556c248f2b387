'use strict';

/* Shows a comparison of two documents. Strings in it come from files; whatever is shown of them is shown as text. */

const compared = JSON.parse(byId('comparison').textContent);

const UNITS = { ns: [1000, 1, ' µs'], s: [1, 3, ' s'], cycles: [1, 0, ' cycles'] };
const NAMES = { equal: 'equal', 'within-spread': 'within the spread', apart: 'apart', 'no-spread': 'one sample' };

function value(number, unit) {
  const [size, digits, name] = UNITS[unit] || [1, Number.isInteger(number) ? 0 : 2, ''];
  return (number / size).toFixed(digits) + name;
}

function sample({ value: own, interval }, unit) {
  const cell = element('td', { textContent: value(own, unit) });
  if (interval) {
    cell.textContent += ` (${value(interval.low, unit)} to ${value(interval.high, unit)})`;
    cell.title = `${interval.runs} runs, with a confidence of ${(interval.confidence * 100).toFixed(1)} %`;
  }
  return cell;
}

const ratio = (number) => (number === null || number === undefined ? '' : number.toFixed(2));

function showFigures() {
  const hasSpread = compared.of === 'benches';
  const rows = [];
  for (const { name, figures } of compared.groups) {
    const shown = figures.filter(({ significance }) => byId('equal').checked || significance !== 'equal');
    if (shown.length === 0) continue;
    rows.push([element('th', { textContent: name, scope: 'rowgroup' })]);
    for (const figure of shown) {
      const { a, b, unit, difference, significance, ratio_interval: ends } = figure;
      const mark = element('td', { textContent: NAMES[significance], className: significance === 'apart' ? 'bad words' : 'words' });
      rows.push([
        figure.name, sample(a, unit), sample(b, unit), value(difference, unit), ratio(figure.ratio),
        ...(hasSpread ? [ratio(ends?.[0]), ratio(ends?.[1]), mark] : []),
      ]);
    }
  }
  table('figures', ['', 'a', 'b', 'b − a', 'b/a', ...(hasSpread ? ['from', 'to', ''] : [])], rows);
}

byId('result').textContent = `Two ${compared.of} side by side`;
showFacts(['a', 'b'].map((side) => [side, `${compared[side].file}, of ${compared[side].provenance.date}`]));
byId('same').hidden = compared.differs.length > 0;
if (compared.differs.length > 0) {
  table('differs', ['', 'a', 'b'], compared.differs.map(({ what, a, b }) => [what, words(a), words(b)]));
}
byId('notes').replaceChildren(...compared.notes.map((note) => element('li', { textContent: note })));
const only = ['a', 'b'].flatMap((side) => compared[`only_${side}`].map((what) => `only in ${side}: ${what}`));
byId('only-section').hidden = only.length === 0;
byId('only').replaceChildren(...only.map((what) => element('li', { textContent: what })));
byId('equal').addEventListener('change', showFigures);
showFigures();
