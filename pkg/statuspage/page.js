'use strict'
// Draws what /status.json says, every five seconds. All text goes through textContent: names come from clients.

const byId = id => document.getElementById(id)
const height = 64
const atLeast = 60 // points across a chart, so that the first minutes are not squeezed into its edge

function element(name, props = {}, ...children) {
  const e = Object.assign(document.createElement(name), props)
  e.append(...children)
  return e
}

function svgPath(className, d) {
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path')
  path.setAttribute('class', className)
  path.setAttribute('d', d)
  return path
}

// human writes a number in three or so digits, with its unit.
function human(value, unit) {
  if (value === null || value === undefined) return '–'
  if (unit === 's') return value >= 1 ? `${+value.toPrecision(3)} s` : value >= 1e-3 ? `${+(value * 1e3).toPrecision(3)} ms` : `${+(value * 1e6).toPrecision(3)} µs`
  const bytes = unit.startsWith('B')
  const base = bytes ? 1024 : 1000
  const prefixes = bytes ? ['', 'Ki', 'Mi', 'Gi', 'Ti'] : ['', ' k', ' M', ' G', ' T']
  let i = 0
  while (Math.abs(value) >= base && i < prefixes.length - 1) { value /= base; i++ }
  return bytes ? `${+value.toPrecision(3)} ${prefixes[i]}${unit}` : `${+value.toPrecision(3)}${prefixes[i]}${unit}`
}

function duration(ms) {
  const s = Math.floor(ms / 1000)
  if (s < 60) return `${s} s`
  if (s < 3600) return `${Math.floor(s / 60)} min`
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min`
  return `${Math.floor(s / 86400)} d ${Math.floor(s % 86400 / 3600)} h`
}

function drawChart(chart, stepMs) {
  const width = Math.max(atLeast, chart.points.length)
  const known = chart.points.filter(p => p !== null)
  const top = Math.max(...known, 0) || 1
  const x = i => width - (chart.points.length - 1 - i)
  const y = v => height - 2 - (height - 6) * v / top
  let line = '', area = '', from = null
  chart.points.forEach((p, i) => {
    if (p !== null) {
      line += `${from === null ? 'M' : 'L'}${x(i)} ${y(p).toFixed(1)}`
      if (from === null) from = i
    }
    if (from !== null && (p === null || i === chart.points.length - 1)) {
      const to = p === null ? i - 1 : i
      area += `M${x(from)} ${height}` + chart.points.slice(from, to + 1).map((v, k) => `L${x(from + k)} ${y(v).toFixed(1)}`).join('') + `L${x(to)} ${height}Z`
      from = null
    }
  })
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg')
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`)
  svg.setAttribute('preserveAspectRatio', 'none')
  svg.append(svgPath('area', area), svgPath('line', line))
  const last = chart.points.length ? chart.points[chart.points.length - 1] : null
  return element('figure', {},
    element('figcaption', {}, element('span', { textContent: chart.title }), element('b', { textContent: human(last, chart.unit) })),
    svg,
    element('small', {}, element('span', { textContent: `${duration(width * stepMs)} ago` }), element('span', { textContent: known.length ? `top ${human(Math.max(...known), chart.unit)}` : 'nothing yet' })))
}

function drawTable(table) {
  const head = element('tr', {}, ...table.columns.map(c => element('th', { textContent: c, scope: 'col' })))
  const rows = (table.rows || []).map(row => element('tr', {}, ...row.map(cell => element('td', { textContent: cell }))))
  const parts = [element('h2', { textContent: table.title })]
  if (rows.length) parts.push(element('div', { className: 'scroll' }, element('table', {}, element('thead', {}, head), element('tbody', {}, ...rows))))
  const note = table.note || (rows.length ? '' : 'none')
  if (note) parts.push(element('p', { className: 'note', textContent: note }))
  return parts
}

let heard = 0
function showState(text, stale) {
  byId('state').textContent = text
  byId('state').className = stale ? 'stale' : ''
}

async function refresh() {
  try {
    const answer = await fetch('status.json', { cache: 'no-store', signal: AbortSignal.timeout(8000) })
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`)
    const status = await answer.json()
    document.title = byId('title').textContent = status.title
    byId('uptime').textContent = `up ${duration(status.now_ms - status.started_ms)}`
    byId('charts').replaceChildren(...status.charts.map(c => drawChart(c, status.step_ms)))
    byId('tables').replaceChildren(...status.tables.filter(t => t.title).flatMap(drawTable))
    heard = Date.now()
    showState(new Date(status.now_ms).toLocaleTimeString(), false)
  } catch (error) {
    showState(`no answer${heard ? ` for ${duration(Date.now() - heard)}` : ''}: ${error.message}`, true)
  }
  setTimeout(refresh, 5000)
}
refresh()
