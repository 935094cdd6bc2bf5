// `GET /api/assets/catalog` (seed 004), and each of its three lists. `downloaded` is told by the files of
// the model store in the data folder, whose names are the digests they were checked against, and their
// size; texts of our own are here where the bytes handed out have the digest of their entry.

import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ApiError } from '../../base/errors.ts';
import { flag, integer, list as listOf, nullable, object, text } from '../../base/shape.ts';
import { type Route, route } from '../../http/route.ts';
import { blobFileName } from '../../models/store/names.ts';
import { catalogAnswer, type CatalogSignature, signatureAnswer } from './catalog.ts';
import { assetAnswer } from './entry.ts';
import { isMade, madeText } from './texts.ts';

export interface AssetOptions {
  /** Of the data, with the store's `blobs`. */
  readonly dataFolder: string;
  readonly signature: CatalogSignature | undefined;
}

/** Whose entries are texts of our own. */
const MADE = ['datasets', 'benchmarks'] as const;
const LISTS = ['models', 'datasets', 'benchmarks'] as const;
const count = integer({ min: 0, max: 100_000 });

const assets = listOf(assetAnswer, { max: 1000 });

const about = {
  asset_dir: text({ max: 4096 }),
  catalog_sha256: text({ max: 64 }),
  signed: flag('Whether the build has a signature of these entries.'),
  signature: nullable(signatureAnswer),
};

export function assetRoutes({ dataFolder, signature }: AssetOptions): readonly Route[] {
  const assetDir = join(dataFolder, 'blobs');
  const isStored = async (sha256: string, size: number): Promise<boolean> => {
    if (isMade(sha256)) return true;
    const found = await stat(join(assetDir, blobFileName(sha256))).catch(() => undefined);
    return found?.isFile() === true && found.size === size;
  };
  const answer = (): ReturnType<typeof catalogAnswer> => catalogAnswer({ assetDir, isStored, signature });
  const common = { method: 'GET', access: 'key', limited: true, tag: 'Assets' } as const;
  return [
    route({
      ...common,
      path: '/api/assets/catalog',
      summary: 'Models, data sets and benchmarks with their digests.',
      answer: object({
        models: assets,
        datasets: assets,
        benchmarks: assets,
        total_models: count,
        downloaded_models: count,
        ...about,
      }),
      handle: answer,
    }),
    ...LISTS.map((list) =>
      route({
        ...common,
        path: `/api/assets/${list}`,
        summary: `The ${list} of the catalogue.`,
        answer: object({ [list]: assets, total: count, ...about }),
        async handle() {
          const { [list]: found, asset_dir, catalog_sha256, signed, signature: by } = await answer();
          return { [list]: found, total: found.length, asset_dir, catalog_sha256, signed, signature: by };
        },
      }),
    ),
    ...MADE.map((list) => contentRoute(list)),
  ];
}

/** Of the texts that are made here; models come from their source, by `POST /v1/models` of a server. */
function contentRoute(list: (typeof MADE)[number]): Route {
  return route({
    method: 'GET',
    access: 'key',
    limited: true,
    tag: 'Assets',
    path: `/api/assets/${list}/:id/content`,
    summary: `The bytes of one of the ${list}, as the catalogue has their SHA-256.`,
    bytes: 'application/jsonl',
    errors: ['no_such_file'],
    handle({ params, reply }) {
      const { id = '' } = params;
      const bytes = madeText(list, id);
      if (bytes === undefined)
        throw new ApiError('no_such_file', `the catalogue has no such bytes in ${list}`);
      reply.type('application/jsonl').header('content-length', bytes.length);
      reply.header('content-disposition', `attachment; filename="${id}.jsonl"`);
      return Promise.resolve(reply.send(bytes));
    },
  });
}
