// Writes the licence texts of everything that is linked into a program: licences.mjs PACKAGE [NODE_MODULES]
// Texts that several libraries share are written once. A library whose archive holds no text must be under Apache-2.0, whose
// text is in every package; else this fails.
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

const [wanted, nodeModules] = process.argv.slice(2);
const cargo = process.env.CARGO ?? 'cargo';
const options = ['metadata', '--format-version', '1', '--locked', '--filter-platform', `${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-unknown-linux-gnu`];
const { packages, resolve } = JSON.parse(execFileSync(cargo, options, { maxBuffer: 1 << 28, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }));
const byId = new Map(packages.map((p) => [p.id, p]));
const nodes = new Map(resolve.nodes.map((n) => [n.id, n]));

/** All that the package's programs are linked from: neither build scripts' nor tests' dependencies, nor macros'. */
function linked(name) {
  const seen = new Set();
  const waiting = [packages.find((p) => p.name === name).id];
  while (waiting.length > 0) {
    const id = waiting.pop();
    if (seen.has(id) || byId.get(id).targets.every((t) => t.kind.includes('proc-macro') || t.kind.includes('custom-build'))) continue;
    seen.add(id);
    for (const dep of nodes.get(id).deps) if (dep.dep_kinds.some((k) => k.kind === null)) waiting.push(dep.pkg);
  }
  return [...seen].map((id) => byId.get(id)).filter((p) => p.source !== null);
}

function texts(dir) {
  return readdirSync(dir)
    .filter((file) => /^(licen[cs]e|copying|notice|unlicense|copyright)/i.test(file))
    .sort()
    .map((file) => join(dir, file))
    .flatMap((path) => { try { return [readFileSync(path, 'utf8').trim()]; } catch { return []; } });
}

const libraries = linked(wanted).map((p) => ({ name: `${p.name} ${p.version}`, licence: p.license ?? 'see text', texts: texts(dirname(p.manifest_path)) }));
if (nodeModules && existsSync(nodeModules)) {
  // What the dashboard's bundle contains; the rest of node_modules are tools.
  for (const name of ['svelte', 'uplot']) {
    const dir = join(nodeModules, name);
    const { version, license } = JSON.parse(readFileSync(join(dir, 'package.json'), 'utf8'));
    libraries.push({ name: `${name} ${version}`, licence: license, texts: texts(dir) });
  }
}
libraries.sort((a, b) => a.name.localeCompare(b.name, 'en'));

const untold = libraries.filter(({ licence, texts }) => texts.length === 0 && !licence.includes('Apache-2.0')).map(({ name }) => name);
if (untold.length > 0) throw new Error(`no licence text was found for ${untold.join(', ')}`);

const shared = new Map();
for (const library of libraries) {
  for (const text of library.texts) shared.set(text, [...(shared.get(text) ?? []), library.name]);
}
const out = ['Libraries in this package and their licences.', ''];
for (const { name, licence, texts } of libraries) out.push(`${name}: ${licence}${texts.length === 0 ? ' (its archive holds no text)' : ''}`);
for (const [text, names] of shared) out.push('', '='.repeat(100), names.join(', '), '='.repeat(100), '', text);
process.stdout.write(out.join('\n') + '\n');
