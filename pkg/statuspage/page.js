'use strict'
// Shows what /status.json says, every five seconds. All text goes through textContent: names come from clients. Elements stay
// between answers, so that nothing that is open, focused or selected is lost.

const byId = id => document.getElementById(id)
const everyMs = 5000
const atLeast = 60 // points across a chart, so that the first minutes are not squeezed into its edge

// ---- elements

function element(name, props = {}, ...children) {
  const e = Object.assign(document.createElement(name), props)
  e.append(...children)
  return e
}

// setText changes the text of an element only if it differs: screen readers repeat what changes.
function setText(e, text) {
  if (e.textContent !== text) e.textContent = text
}

// part is the child with a class; parts are made by the makers below.
const part = (e, name) => e.querySelector(`.${name}`)

// keyed gives a parent one child for each item, in their order. A child with the same key stays.
function keyed(parent, items, keyOf, make, update) {
  const former = new Map([...parent.children].map(child => [child.dataset.key, child]))
  items.forEach((item, i) => {
    const key = keyOf(item)
    let child = former.get(key)
    if (child === undefined) {
      child = make(item)
      child.dataset.key = key
    }
    former.delete(key)
    if (parent.children[i] !== child) parent.insertBefore(child, parent.children[i] || null)
    update(child, item)
  })
  former.forEach(child => child.remove())
}

// ---- numbers

const digits = value => String(+value.toPrecision(3))

// human writes a number in three or so digits, with its unit.
function human(value, unit) {
  if (value === null || value === undefined) return '–'
  if (unit === 's') return value >= 1 ? `${digits(value)} s` : value >= 1e-3 ? `${digits(value * 1e3)} ms` : `${digits(value * 1e6)} µs`
  const bytes = unit.startsWith('B')
  const base = bytes ? 1024 : 1000
  const prefixes = bytes ? ['', 'Ki', 'Mi', 'Gi', 'Ti'] : ['', 'k', 'M', 'G', 'T']
  let i = 0
  while (Math.abs(value) >= base && i < prefixes.length - 1) { value /= base; i++ }
  const space = bytes || (prefixes[i] && unit === '') || unit === '/s' ? ' ' : ''
  return `${digits(value)}${space}${prefixes[i]}${unit}`
}

// perTime writes a rate and its unit: of one that is below one a second, how many a minute.
function perTime(value) {
  if (value === null) return ['–', '']
  return value > 0 && value < 0.995 ? [digits(value * 60), 'per minute'] : [human(value, ''), 'per second']
}

const atMost = seconds => seconds === null ? '–' : `≤ ${human(seconds, 's')}`

function duration(ms) {
  const s = Math.max(0, Math.floor(ms / 1000))
  if (s < 60) return `${s} s`
  if (s < 3600) return `${Math.floor(s / 60)} min`
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min`
  return `${Math.floor(s / 86400)} d ${Math.floor(s % 86400 / 3600)} h`
}

function clock(ms) {
  const then = new Date(ms)
  const time = then.toLocaleTimeString()
  return then.toDateString() === new Date().toDateString() ? time : `${then.toLocaleDateString()} ${time}`
}

// ---- curves

function makeCurve() {
  const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg')
  svg.setAttribute('preserveAspectRatio', 'none')
  svg.setAttribute('role', 'img')
  for (const name of ['area', 'line']) {
    const path = document.createElementNS('http://www.w3.org/2000/svg', 'path')
    path.setAttribute('class', name)
    svg.append(path)
  }
  return svg
}

// drawCurve draws points, oldest first; nulls leave gaps.
function drawCurve(svg, points, height, label) {
  const width = Math.max(atLeast, points.length)
  const top = Math.max(...points, 0) || 1
  const x = i => width - (points.length - 1 - i)
  const y = v => (height - 2 - (height - 4) * v / top).toFixed(1)
  let line = ''
  let area = ''
  let from = null
  points.forEach((p, i) => {
    if (p !== null && from === null) from = i
    if (from === null || (p !== null && i < points.length - 1)) return
    const run = points.slice(from, p === null ? i : i + 1)
    line += run.map((v, k) => `${k ? 'L' : 'M'}${x(from + k)} ${y(v)}`).join('') + (run.length === 1 ? 'h0.01' : '')
    area += `M${x(from)} ${height}` + run.map((v, k) => `L${x(from + k)} ${y(v)}`).join('') + `L${x(from + run.length - 1)} ${height}Z`
    from = null
  })
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`)
  svg.setAttribute('aria-label', label)
  svg.querySelector('.area').setAttribute('d', area)
  svg.querySelector('.line').setAttribute('d', line)
  return width
}

function makeChart(chart) {
  return element('figure', {},
    element('figcaption', {}, element('span', { textContent: chart.title }), element('b', { className: 'now' })),
    makeCurve(),
    element('small', {}, element('span', { className: 'span' }), element('span', { className: 'top' })))
}

function updateChart(figure, chart, stepMs) {
  const known = chart.points.filter(p => p !== null)
  const now = human(chart.points.length ? chart.points[chart.points.length - 1] : null, chart.unit)
  const top = known.length ? `highest ${human(Math.max(...known), chart.unit)}` : 'nothing yet'
  const width = drawCurve(figure.querySelector('svg'), chart.points, 56, `${chart.title}: now ${now}, ${top}`)
  setText(part(figure, 'now'), now)
  setText(part(figure, 'span'), `${duration(width * stepMs)} ago`)
  setText(part(figure, 'top'), top)
}

// ---- readiness

const words = { ok: '✓ ok', degraded: '! degraded', failed: '✕ failed' }

// verdict is what the page says first: how it looks, its text, and a note.
function verdict(health) {
  if (!health) return ['unknown', 'Readiness is not known', 'This process has no checks.']
  const names = state => health.checks.filter(c => c.state === state).map(c => c.name).join(', ')
  if (health.draining) return ['warn', 'Not ready: it is being stopped', 'It finishes what it has begun and takes nothing new.']
  if (!health.ready) return ['bad', `Not ready: ${names('failed')}`, 'It cannot do its work until this is available.']
  if (health.degraded) return ['warn', `Ready, degraded: ${names('degraded')}`, 'It serves what it can without this.']
  return ['good', 'Ready', '']
}

const colors = { good: '%2317764a', warn: '%23d98a1f', bad: '%23d0342b', unknown: '%23808f9c' }

function showVerdict([look, text, note], title) {
  byId('health').className = `card ${look}`
  setText(byId('verdict-text'), text)
  setText(byId('verdict-note'), note)
  byId('verdict-note').hidden = !note
  const shown = `${look === 'good' ? '' : `${text} · `}${title}`
  if (document.title !== shown) document.title = shown
  const icon = `data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'><circle cx='4' cy='4' r='3.5' fill='${colors[look]}'/></svg>`
  if (byId('icon').href !== icon) byId('icon').href = icon
}

function showChecks(health, nowMs) {
  const order = { failed: 0, degraded: 1, ok: 2 }
  const checks = health ? [...health.checks].sort((a, b) => order[a.state] - order[b.state]) : []
  keyed(byId('checks'), checks, c => c.name,
    c => element('li', {}, element('b', { textContent: c.name }), element('span', { className: 'word' }), element('span', { className: 'since' }), element('span', { className: 'reason' })),
    (li, c) => {
      li.className = c.state
      setText(part(li, 'word'), words[c.state] || c.state)
      setText(part(li, 'since'), c.state === 'ok' ? `for ${duration(nowMs - c.since_ms)}` : `since ${clock(c.since_ms)} (${duration(nowMs - c.since_ms)})`)
      setText(part(li, 'reason'), c.reason)
      part(li, 'reason').hidden = !c.reason
    })
}

// ---- the way of a message

function makeStage(stage) {
  const curve = makeCurve()
  curve.classList.add('spark')
  const figure = (term, name) => element('div', {}, element('dt', { textContent: term }), element('dd', { className: name }))
  return element('li', { className: 'card' },
    element('h3', { textContent: stage.name }), element('p', { className: 'note', textContent: stage.meaning }),
    element('p', { className: 'rate' }, element('span', { className: 'number' }), ' ', element('small', { className: 'per' })), curve,
    element('dl', {}, figure('p50', 'p50'), figure('p99', 'p99'), figure(stage.backlog_of, 'backlog')),
    element('p', { className: 'from', textContent: stage.latency_from ? `Latency ${stage.latency_from}` : '' }))
}

function updateStage(li, stage) {
  const [number, per] = perTime(stage.rate)
  setText(part(li, 'number'), number)
  setText(part(li, 'per'), per)
  setText(part(li, 'p50'), atMost(stage.p50_seconds))
  setText(part(li, 'p99'), atMost(stage.p99_seconds))
  setText(part(li, 'backlog'), human(stage.backlog, stage.backlog_unit))
  part(li, 'backlog').parentElement.hidden = !stage.backlog_of
  drawCurve(li.querySelector('svg'), stage.points, 40, `${stage.name}: the rate of the last 30 minutes, now ${number} ${per}`)
}

// ---- tables

function makeTable(table) {
  const scroll = element('div', { className: 'scroll', tabIndex: 0 }, element('table', {}, element('thead', {}, element('tr')), element('tbody')))
  scroll.setAttribute('role', 'region')
  scroll.setAttribute('aria-label', table.title)
  return element('details', { open: !!table.attention },
    element('summary', {}, element('b', { textContent: table.title }), element('span', { className: 'sum' })),
    element('div', { className: 'body' }, scroll, element('p', { className: 'note' })))
}

const indexed = list => list.map((value, i) => ({ value, key: String(i) }))

function updateTable(details, table) {
  const marked = new Set(table.marked || [])
  details.className = table.attention ? 'marked' : ''
  setText(part(details, 'sum'), table.summary || '')
  part(details, 'scroll').hidden = !table.rows.length
  keyed(details.querySelector('thead tr'), indexed(table.columns), c => c.key, () => element('th', { scope: 'col' }), (th, c) => setText(th, c.value))
  keyed(details.querySelector('tbody'), indexed(table.rows), r => r.key, () => element('tr'), (tr, row) => {
    tr.className = marked.has(+row.key) ? 'marked' : ''
    keyed(tr, indexed(row.value), c => c.key, () => element('td'), (td, c) => {
      setText(td, c.value)
      td.className = c.value.length > 40 ? 'long' : ''
    })
  })
  const note = table.note || (table.rows.length ? '' : 'Nothing to list.')
  setText(part(details, 'note'), note)
  part(details, 'note').hidden = !note
}

// ---- all of it

function show(status) {
  document.body.classList.remove('away')
  setText(byId('title'), status.title)
  setText(byId('uptime'), `up ${duration(status.now_ms - status.started_ms)} · as of ${clock(status.now_ms)}`)
  setText(byId('version'), status.version)
  byId('version').hidden = !status.version
  showVerdict(verdict(status.health), status.title)
  showChecks(status.health, status.now_ms)

  byId('attention').hidden = !status.attention.length
  keyed(byId('attention-list'), indexed(status.attention), a => a.key, () => element('li'), (li, a) => setText(li, a.value))

  byId('way').hidden = !status.stages.length
  keyed(byId('stages'), status.stages, s => s.name, makeStage, updateStage)

  keyed(byId('tables'), status.tables.filter(t => t.title), t => t.title, makeTable, updateTable)

  const draw = (figure, chart) => updateChart(figure, chart, status.step_ms)
  const more = status.charts.filter(c => c.detail)
  byId('trends').hidden = !status.charts.length
  byId('more').hidden = !more.length
  setText(byId('more-title'), `${more.length} more ${more.length === 1 ? 'chart' : 'charts'}`)
  keyed(byId('charts'), status.charts.filter(c => !c.detail), c => c.title, makeChart, draw)
  keyed(byId('more-charts'), more, c => c.title, makeChart, draw)
}

let title = 'Runnel'
let heardMs = 0

// showAway says that the server does not answer. The rest stays as it was last seen.
function showAway(reason) {
  document.body.classList.add('away')
  const note = `${reason}${heardMs ? `. What follows is from ${clock(heardMs)}, ${duration(Date.now() - heardMs)} ago.` : ''}`
  showVerdict(['bad', heardMs ? `The server has not answered since ${clock(heardMs)}` : 'The server does not answer', note], title)
}

async function refresh() {
  try {
    const answer = await fetch('status.json', { cache: 'no-store', signal: AbortSignal.timeout(8000) })
    if (!answer.ok) throw new Error(`it answers ${answer.status}: ${(await answer.text()).trim()}`)
    const status = await answer.json()
    title = status.title
    show(status)
    heardMs = Date.now()
  } catch (error) {
    showAway(error.name === 'TimeoutError' ? 'It took longer than 8 s' : error instanceof TypeError ? 'There is no connection' : error.message)
  }
  setTimeout(refresh, everyMs)
}
refresh()
