"""What does the page of a description look like: on a screen, a phone, paper, in the dark?

Floor 8: imports nothing of tidelog. Thread rule: a constant.
"""

__all__ = ["STYLE"]

STYLE = """\
:root {
  color-scheme: light dark;
  --ink: #1b2430; --faint: #5a6675; --paper: #ffffff; --band: #f3f6f9; --line: #d5dce4;
  --accent: #0b5f8a; --receives: #0a6640; --sends: #8a4b00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e3e8ee; --faint: #9aa7b5; --paper: #12171d; --band: #1a2129; --line: #313c48;
    --accent: #6cc0ee; --receives: #6fd3a2; --sends: #f0b264;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1.5rem 1.25rem 3rem; max-width: 80rem;
  color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif;
}
code, pre { font-family: ui-monospace, "Cascadia Mono", "DejaVu Sans Mono", "Liberation Mono", monospace; }
code, pre { font-size: 0.875em; overflow-wrap: break-word; }
h1 { font-size: 1.75rem; margin: 0 0 0.5rem; line-height: 1.2; }
h2 { font-size: 1.25rem; margin: 0 0 0.25rem; }
p { margin: 0.25rem 0 0.5rem; max-width: 70ch; }
a { color: var(--accent); }
header { border-bottom: 1px solid var(--line); padding-bottom: 1rem; }
.version { color: var(--faint); font-weight: 400; }
.servers { list-style: none; margin: 0.75rem 0; padding: 0; color: var(--faint); }
nav { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; }
section { margin-top: 2rem; scroll-margin-top: 1rem; }
section > p, .facts, footer, .none { color: var(--faint); }
.facts { font-size: 0.875rem; line-height: 1.4; margin-top: 0.15rem; }
.address { font-weight: 600; }
.badge {
  display: inline-block; border: 1px solid currentColor; border-radius: 0.75rem;
  padding: 0 0.5rem; font-size: 0.75rem; line-height: 1.25rem; color: var(--accent); white-space: nowrap;
}
.badge.receives { color: var(--receives); }
.badge.sends { color: var(--sends); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.5rem 0.75rem; border-bottom: 1px solid var(--line); }
thead th { font-size: 0.8125rem; color: var(--faint); border-bottom-width: 2px; white-space: nowrap; }
.columns-4, .columns-6 { table-layout: fixed; }
.columns-4 td, .columns-6 td { overflow-wrap: break-word; }
.columns-4 th:nth-child(1) { width: 22%; } .columns-4 th:nth-child(2) { width: 26%; }
.columns-4 th:nth-child(4) { width: 16%; }
.columns-6 th:nth-child(1) { width: 14%; } .columns-6 th:nth-child(2) { width: 15%; }
.columns-6 th:nth-child(4), .columns-6 th:nth-child(6) { width: 13.5%; }
details { margin: 0.15rem 0; }
details details { margin-left: 0.75rem; }
summary { cursor: pointer; color: var(--accent); }
summary:focus-visible, a:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.fields { background: var(--band); border-radius: 0.25rem; margin: 0.25rem 0 0.5rem; }
.fields th, .fields td { padding: 0.25rem 0.5rem; font-size: 0.875rem; }
.fields th { font-weight: 600; }
.fields td:last-child { width: 45%; }
.fields tr:last-child > * { border-bottom: 0; }
pre { background: var(--band); border-radius: 0.25rem; margin: 0.25rem 0; padding: 0.5rem 0.75rem; }
pre { white-space: pre-wrap; }
footer { margin-top: 2.5rem; font-size: 0.875rem; }
@media (max-width: 52rem) {
  .columns-4 > thead, .columns-6 > thead { position: absolute; clip-path: inset(50%); }
  .columns-4 > tbody > tr, .columns-6 > tbody > tr {
    display: block; border: 1px solid var(--line); border-radius: 0.5rem; margin: 0.75rem 0; padding: 0.25rem 0;
  }
  .columns-4 > tbody > tr > td, .columns-6 > tbody > tr > td { display: block; border: 0; padding: 0.35rem 0.75rem; }
  td[data-column]::before {
    content: attr(data-column); display: block; font-size: 0.75rem; color: var(--faint); line-height: 1.3;
  }
  details details { margin-left: 0; }
}
@media print {
  :root { --ink: #000; --faint: #444; --paper: #fff; --band: #fff; --line: #999; --accent: #000;
    --receives: #000; --sends: #000; }
  body { padding: 0; max-width: none; font-size: 10pt; }
  nav { display: none; }
  tr { break-inside: avoid-page; }
  section { break-inside: auto; }
  details::details-content { content-visibility: visible; display: block; block-size: auto; }
  summary { list-style: none; color: inherit; }
}
"""
"""One style sheet, in the page itself."""
