// The engine of a replay: the routes ask it as they ask any engine, and it answers with the seed of the
// receipt, alone or not, and with recorded tokens where there are some. What it wrote is kept for the
// verdict.

import type { Engine, GenerateRequest, OpenEngine, RecordedReport } from '../../engine/seam/engine.ts';

export interface ReplayRunOptions {
  readonly alone: boolean;
  /** Of the first prompt, where the request gives none. */
  readonly seed: number | undefined;
  /** Tokens to write, of each choice; undefined: those that are picked. */
  readonly recorded?: readonly (readonly number[])[] | undefined;
}

/** One computation of a request. */
export class ReplayRun {
  readonly options: ReplayRunOptions;
  /** Of each choice. */
  readonly tokens: number[][] = [];
  readonly reports: RecordedReport[] = [];
  prompts = 0;

  constructor(options: ReplayRunOptions) {
    this.options = options;
  }
}

export class ReplayEngines {
  run = new ReplayRun({ alone: false, seed: undefined });

  open(openEngine: OpenEngine): OpenEngine {
    return async (spec, signal) => this.#viewOf(await openEngine(spec, signal));
  }

  #viewOf(engine: Engine): Engine {
    const { transcribe } = engine;
    return {
      info: engine.info,
      pid: engine.pid,
      closed: engine.closed,
      generate: (request, signal) => this.#generate(engine, request, signal),
      tokenize: (...given) => engine.tokenize(...given),
      detokenize: (...given) => engine.detokenize(...given),
      pieces: (...given) => engine.pieces(...given),
      embed: (...given) => engine.embed(...given),
      rank: (...given) => engine.rank(...given),
      transcribe: transcribe?.bind(engine),
      dropped: () => engine.dropped(),
      stats: () => engine.stats(),
      close: () => engine.close(),
    };
  }

  #generate(engine: Engine, request: GenerateRequest, signal: AbortSignal): ReturnType<Engine['generate']> {
    const { run } = this;
    const prompt = run.prompts;
    run.prompts += 1;
    const { alone, seed, recorded } = run.options;
    const base = prompt * request.n;
    const { sampling } = request;
    const drawn = sampling.seed === undefined || sampling.seedDrawn === true;
    const asked: GenerateRequest = {
      ...request,
      alone,
      tokens: true,
      sampling: drawn && seed !== undefined ? { ...sampling, seed: seed + prompt } : sampling,
      recorded: recorded?.slice(base, base + request.n),
    };
    return noted(run, base, engine.generate(asked, signal));
  }
}

async function* noted(
  run: ReplayRun,
  base: number,
  events: ReturnType<Engine['generate']>,
): ReturnType<Engine['generate']> & AsyncGenerator {
  for await (const event of events) {
    if (event.kind !== 'start') {
      const at = base + event.index;
      while (run.tokens.length <= at) run.tokens.push([]);
      for (const token of event.tokens ?? []) run.tokens[at]?.push(token);
      if (event.kind === 'finish' && event.recorded !== undefined) run.reports[at] = event.recorded;
    }
    yield event;
  }
}
