// The formats of image files that are decoded: one table, from which the server names what it takes and what
// it asks an address for. libmtmd decodes all but those with a library of their own, which a machine may
// lack.

import { nativeLibrary, type NativeLibraryName } from './native-library.ts';

interface ImageFormat {
  readonly name: string;
  /** Absent: libmtmd. */
  readonly library?: NativeLibraryName | undefined;
}

const FORMATS = {
  png: { name: 'PNG' },
  jpeg: { name: 'JPEG' },
  gif: { name: 'GIF' },
  webp: { name: 'WebP', library: 'libwebpdecoder' },
} satisfies Readonly<Record<string, ImageFormat>>;

export type ImageKind = keyof typeof FORMATS;

// Its own keys.
// oxlint-disable-next-line typescript/no-unsafe-type-assertion
export const IMAGE_KINDS = Object.keys(FORMATS) as readonly ImageKind[];

/** Those that are decoded where `has` finds the libraries; by default, on this machine. */
export function decodedKinds(
  has: (library: NativeLibraryName) => boolean = (library) => nativeLibrary(library) !== undefined,
): readonly ImageKind[] {
  return IMAGE_KINDS.filter((kind) => {
    const { library }: ImageFormat = FORMATS[kind];
    return library === undefined || has(library);
  });
}

export function kindName(kind: ImageKind): string {
  return FORMATS[kind].name;
}

/** As `PNG, JPEG or GIF`. */
export function kindNames(kinds: readonly ImageKind[]): string {
  const names = kinds.map(kindName);
  return `${names.slice(0, -1).join(', ')} or ${names.at(-1)}`;
}

export function mediaType(kind: ImageKind): `image/${ImageKind}` {
  return `image/${kind}`;
}
