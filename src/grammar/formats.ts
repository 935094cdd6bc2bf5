// The string formats of JSON Schema that are enforced, as patterns, and patterns with look-around
// that have an equal without.

const OCTET = '(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)';
const TIME_OF_DAY = '([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,9})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)';
const DAY =
  '(\\d{4}-(0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|\\d{4}-(0[469]|11)-(0[1-9]|[12]\\d|30)|\\d{4}-02-(0[1-9]|1\\d|2[0-8]))';
const LABEL = '[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?';
const SHORT_LABEL = '[a-zA-Z0-9]([a-zA-Z0-9-]{0,38}[a-zA-Z0-9])?';
const H16 = '[0-9a-fA-F]{1,4}';

/**
 * Anchored patterns for the formats we enforce. 29 February is left out: its validity depends on the year.
 */
export const FORMATS: ReadonlyMap<string, string> = new Map([
  ['date', `^${DAY}$`],
  ['time', `^${TIME_OF_DAY}$`],
  ['date-time', `^${DAY}T${TIME_OF_DAY}$`],
  [
    'duration',
    '^P(\\d{1,9}W|\\d{1,9}Y(\\d{1,9}M(\\d{1,9}D)?)?|\\d{1,9}M(\\d{1,9}D)?|\\d{1,9}D|(\\d{1,9}D)?T(\\d{1,9}H(\\d{1,9}M(\\d{1,9}S)?)?|\\d{1,9}M(\\d{1,9}S)?|\\d{1,9}S))$',
  ],
  ['email', `^[a-zA-Z0-9_+-]+(\\.[a-zA-Z0-9_+-]+)*@${LABEL}(\\.${LABEL})+$`],
  // Six labels of 40 characters stay below the 253 characters of a name.
  ['hostname', `^${SHORT_LABEL}(\\.${SHORT_LABEL}){0,5}$`],
  ['ipv4', `^${OCTET}(\\.${OCTET}){3}$`],
  ['ipv6', `^((${H16}:){7}${H16}|(${H16}:){1,6}:${H16}|(${H16}:){1,7}:|::(${H16}:){0,5}${H16}|::)$`],
  ['uuid', '^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$'],
  ['uri', '^[a-zA-Z][a-zA-Z0-9+.-]*:[a-zA-Z0-9._~:/?#@!$&()*+,;=%-]+$'],
]);

/**
 * Patterns with look-around that zod 4 writes for a format, each with an equivalent without look-around that
 * admits a subset of the strings: z.iso.duration() and z.hostname().
 */
export const withoutLookaround: ReadonlyMap<string, string> = new Map([
  [
    '^P(?:(\\d+W)|(?!.*W)(?=\\d|T\\d)(\\d+Y)?(\\d+M)?(\\d+D)?(T(?=\\d)(\\d+H)?(\\d+M)?(\\d+([.,]\\d+)?S)?)?)$',
    FORMATS.get('duration') ?? '',
  ],
  [
    '^(?=.{1,253}\\.?$)[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\\.[a-zA-Z0-9](?:[-0-9a-zA-Z]{0,61}[0-9a-zA-Z])?)*\\.?$',
    FORMATS.get('hostname') ?? '',
  ],
]);
