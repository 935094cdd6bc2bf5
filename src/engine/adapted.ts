// An engine as requests for one of its adapters use it: the same engine, in which they write with the
// adapter.

import type { Engine } from './seam/engine.ts';

/** One view for an engine and adapter, so that what is noted by the engine is noted once. */
const views = new WeakMap<Engine, Map<string, Engine>>();
const hosts = new WeakMap<Engine, Engine>();

export function adaptedEngine(engine: Engine, key: string): Engine {
  const known = views.get(engine) ?? new Map<string, Engine>();
  views.set(engine, known);
  const view = known.get(key) ?? viewOf(engine, key);
  known.set(key, view);
  hosts.set(view, engine);
  return view;
}

/** The engine behind a view; any other engine is its own. */
export function hostEngine(engine: Engine): Engine {
  return hosts.get(engine) ?? engine;
}

function viewOf(engine: Engine, adapter: string): Engine {
  return {
    info: engine.info,
    pid: engine.pid,
    closed: engine.closed,
    generate: (request, signal) => engine.generate({ ...request, adapter }, signal),
    tokenize: (...given) => engine.tokenize(...given),
    detokenize: (...given) => engine.detokenize(...given),
    pieces: (...given) => engine.pieces(...given),
    embed: (...given) => engine.embed(...given),
    rank: (...given) => engine.rank(...given),
    dropped: () => engine.dropped(),
    stats: () => engine.stats(),
    close: () => engine.close(),
  };
}
