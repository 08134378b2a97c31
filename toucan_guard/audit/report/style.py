"""The style sheet of the page: light, dark, phone and paper. Its hash is all that the page's own policy allows."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

# On paper, `main` is no box: Chromium keeps the footer with what stands before it among brothers only, and a page
# that holds nothing but a footer is no page.
STYLE: Final = """
:root{color-scheme:light dark;--paper:#fff;--tint:#f4f6f9;--ink:#16202c;--soft:#56646f;--line:#dde3ea;--grid:#e9edf2;
--blue:#2b69ad;--red:#b93a2a;--deep:#7d1d12;--amber:#8f5b00;--green:#1b7a4e;
--act:#fdf0ee;--look:#fdf6e8;--calm:#edf7f1}
@media (prefers-color-scheme:dark){:root{--paper:#10151b;--tint:#182029;--ink:#e8eef4;--soft:#9dabb9;--line:#2a3540;
--grid:#212b35;--blue:#6ea9ea;--red:#f0806d;--deep:#ffb4a6;--amber:#e9b450;--green:#5cc797;
--act:#2c1a18;--look:#2a2214;--calm:#14261d}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',sans-serif}
.page{max-width:1020px;margin:0 auto;padding:44px 40px 64px}
h1,h2,h3{line-height:1.25;text-wrap:balance;margin:0}
h1{font-size:2rem;font-weight:650;letter-spacing:-.015em;margin:6px 0 0}
h2{font-size:1.3rem;font-weight:650;letter-spacing:-.008em}
h3{font-size:1rem;font-weight:650}
section>h3{margin-top:26px}
p{margin:0;text-wrap:pretty}
p,li,h1,h2,h3,caption,code{overflow-wrap:anywhere}
.over{color:var(--soft);font-size:.875rem;font-weight:600}
.lede{font-size:1.0625rem;color:var(--soft);margin-top:12px;max-width:46em}
.soft{color:var(--soft)}
code,.code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:.86em}
.name{overflow-wrap:anywhere}
.line{display:block}
.line+.line{margin-top:2px}
a{color:var(--blue)}
.verdict{display:flex;gap:14px;align-items:flex-start;margin:26px 0 0;padding:16px 20px;border-radius:10px}
.verdict svg{flex:none;width:26px;height:26px;margin-top:1px}
.verdict strong{display:block;font-size:1.0625rem}
.verdict.act{background:var(--act)}.verdict.act svg,.act>.mark{color:var(--red)}
.verdict.look{background:var(--look)}.verdict.look svg,.look>.mark{color:var(--amber)}
.verdict.calm{background:var(--calm)}.verdict.calm svg{color:var(--green)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(132px,1fr));gap:0;margin:26px 0 0;padding:0;
border-top:1px solid var(--line);border-bottom:1px solid var(--line)}
.tiles div{padding:14px 16px 15px 0}
.tiles dt{font-size:.8125rem;color:var(--soft)}
.tiles dd{margin:0;font-size:1.5rem;
font-weight:620;letter-spacing:-.02em;font-variant-numeric:tabular-nums;line-height:1.3}
.tiles dd small{display:block;font-size:.8125rem;font-weight:400;letter-spacing:0;color:var(--soft)}
.tiles .bad dd{color:var(--red)}
.counting{margin:14px 0 0;font-size:.875rem;color:var(--soft);max-width:62em}
nav{margin:22px 0 0;font-size:.875rem}
nav ul{list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:4px 16px}
nav a{text-decoration:none}nav a:hover{text-decoration:underline}
section{margin:46px 0 0}
section>p{margin-top:6px;max-width:46em;color:var(--soft)}
.notices{list-style:none;margin:16px 0 0;padding:0;display:grid;grid-template-columns:1fr 1fr;gap:0 44px}
.notices li{display:grid;grid-template-columns:22px 1fr;gap:0 10px;padding:13px 0;border-top:1px solid var(--line)}
.notices .mark{width:17px;height:17px;margin-top:3px}
.notices p{margin-top:3px}
.notices .advice{color:var(--soft)}
figure{margin:18px 0 0}
figure figcaption{font-size:.875rem;font-weight:600;margin:0 0 6px}
figure figcaption span{font-weight:400;color:var(--soft)}
.chart{display:block;width:100%;height:auto;overflow:visible}
.chart.narrow{display:none}
.chart text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',sans-serif;fill:var(--soft);
font-variant-numeric:tabular-nums}
.chart .grid{stroke:var(--grid)}.chart .axis,.chart .mark{stroke:var(--soft);stroke-width:1}
.chart .hit{fill:transparent}.chart g:hover .hit{fill:var(--tint)}
.traffic .column{fill:var(--blue)}
.refused .column{fill:var(--red)}.refused .marked{fill:var(--deep)}
.failed .column{fill:var(--amber)}
.bar{display:block;width:100%;min-width:56px;height:6px;margin:7px 0 2px}
.bar .track{fill:var(--grid)}.bar .fill{fill:var(--blue)}.bar.red .fill{fill:var(--red)}
.bar.amber .fill{fill:var(--amber)}
table{width:100%;border-collapse:collapse;margin:16px 0 0;font-size:.9063rem}
caption{text-align:left;color:var(--soft);font-size:.8438rem;padding:0 0 8px}
th,td{padding:9px 14px 9px 0;text-align:left;vertical-align:top;font-weight:400;border-top:1px solid var(--line)}
tr>:last-child{padding-right:0}
thead th{font-size:.8125rem;color:var(--soft);border-top:0;border-bottom:1px solid var(--soft);padding-top:0;
vertical-align:bottom}
tbody tr:first-child>*{border-top:0}
tbody tr:last-child>*{border-bottom:1px solid var(--line)}
th.main{min-width:11em;max-width:24em}
td.number,th.number{text-align:right;padding-right:24px;font-variant-numeric:tabular-nums;white-space:nowrap}
td.meter,th.meter{width:10%}
td.long,th.long{width:30%}
td.place,th.place{min-width:17em}
td.date{white-space:nowrap}
.tag{display:inline-block;font-size:.75rem;line-height:1.5;padding:0 7px;border-radius:9px;background:var(--tint);
color:var(--soft);white-space:nowrap}
.tag.warn{background:var(--look);color:var(--amber)}
.tag.bad{background:var(--act);color:var(--red)}
details{margin:12px 0 0;font-size:.9063rem}
summary{cursor:pointer;color:var(--blue)}
.two{display:grid;grid-template-columns:1fr 1fr;gap:0 44px}
.two section{min-width:0}
dl.facts{display:grid;grid-template-columns:minmax(8em,auto) 1fr;gap:5px 18px;margin:14px 0 0;font-size:.9063rem}
dl.facts dt{color:var(--soft)}dl.facts dd{margin:0;overflow-wrap:anywhere}
footer{margin:52px 0 0;padding:16px 0 0;border-top:1px solid var(--line);font-size:.8125rem;color:var(--soft)}
@media (max-width:760px){.two,.notices{display:block}}
@media (max-width:640px){
td.place{min-width:0}
.page{padding:24px 18px 44px}
h1{font-size:1.5rem}
.lede{font-size:1rem}
.tiles{grid-template-columns:1fr 1fr}
.chart.wide{display:none}.chart.narrow{display:block}
thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
table,tbody,caption{display:block}
tr{display:grid;
grid-template-columns:minmax(6.5em,34%) 1fr;gap:2px 12px;padding:11px 0;border-top:1px solid var(--line)}
tbody tr>*,tbody tr:first-child>*,tbody tr:last-child>*{border:0;padding:0}
tbody tr:last-child{border-bottom:1px solid var(--line)}
tbody th{grid-column:1/-1;max-width:none;margin-bottom:3px}
tbody td{display:contents}
tbody td::before{content:attr(data-label);color:var(--soft);font-size:.8125rem}
td.number{text-align:left;white-space:normal}
td.meter{display:none}td.date{white-space:normal}
dl.facts{grid-template-columns:1fr;gap:0}dl.facts dd{margin-bottom:8px}
}
@page{size:A4;margin:15mm 14mm 16mm}
@media print{
:root{color-scheme:light;--paper:#fff;--tint:#f4f6f9;--ink:#16202c;--soft:#4c5964;--line:#d3dae2;--grid:#e5e9ee;
--blue:#2b69ad;--red:#b93a2a;--deep:#7d1d12;--amber:#8f5b00;--green:#1b7a4e;--act:#fdf0ee;--look:#fdf6e8;--calm:#edf7f1}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
body{font-size:9.5pt}
table,thead th,caption{font-size:8.5pt}
.tiles dt,.tiles dd small{font-size:7.5pt}
th,td{padding-top:6px;padding-bottom:6px}
.notices{display:grid}
.page{max-width:none;padding:0}
.tiles{grid-template-columns:repeat(6,1fr)}.tiles dd{font-size:1.25rem}
nav,details{display:none}
td.place,th.place{min-width:15em}
h1{font-size:20pt}
section{margin-top:28px}
h2,h3,caption,figcaption,section>p:not(:last-child){break-after:avoid}
figure,tr,p,.notices li,.tiles,.verdict,.facts{break-inside:avoid}
dl.facts{font-size:8.5pt}
thead{display:table-header-group;break-after:avoid;break-inside:avoid}
tbody tr:first-child,tbody tr:nth-child(2),tbody tr:last-child{break-before:avoid}
.two{grid-template-columns:1fr 1fr}
main{display:contents}
footer{margin-top:28px;break-before:avoid;break-inside:avoid}
a{color:inherit;text-decoration:none}
}
"""
_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY: Final = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"
