"""The style sheet of a report."""

from __future__ import annotations

STYLE = """
:root { --text: #1c1c1e; --page: #fff; --faint: #5c5c63; --line: #d6d6dc; --shade: #2f6fde;
  --right: #d8f0dc; --missed: #fbdcdc; --spurious: #fdeac2; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ececf0; --page: #18181b; --faint: #a6a6ae; --line: #3f3f46; --shade: #5b93f5;
    --right: #1f4429; --missed: #5c2326; --spurious: #573f10; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; color: var(--text);
  background: var(--page); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0.5rem 0; }
h2, summary { font-size: 1.2rem; font-weight: 600; margin: 1.5rem 0 0.5rem; }
summary { cursor: pointer; }
.curves { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { flex: 1 1 20rem; max-width: 30rem; margin: 0; }
svg { display: block; width: 100%; height: auto; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; border-bottom: 1px solid var(--line); text-align: right; }
th, td span { white-space: nowrap; }
td span { display: inline-block; color: var(--faint); }
th { font-weight: 600; }
th[scope=row], th:first-child, .texts th, .texts td { text-align: left; }
td[style] { background: color-mix(in srgb, var(--shade) calc(var(--share) * 0.55), transparent); }
blockquote { margin: 0.25rem 0 0.75rem; padding: 0.5rem 0.75rem; border-left: 3px solid var(--line);
  white-space: pre-wrap; max-height: 20rem; overflow-y: auto; line-height: 2; }
.errors { padding-left: 2rem; }
.errors p { margin: 0; color: var(--faint); font-size: 0.9rem; }
.key { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; }
mark { color: inherit; background: var(--right); border-radius: 3px; padding: 0.1em 0.2em; }
mark.spurious { background: var(--spurious); text-decoration: underline dotted; }
mark.missed { background: var(--missed); text-decoration: underline dashed; }
mark small { margin-left: 0.35em; font-size: 0.7em; font-weight: 600;
  display: inline-block; text-decoration: none; }
mark small + small::before { content: "\\00b7\\00a0"; }
@media print { details { display: block; } body { max-width: none; } }
"""
