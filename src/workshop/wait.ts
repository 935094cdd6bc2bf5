// `?wait=` of the routes whose work goes on beside the request: how long the answer waits for its end.

import { map, object, optional, text } from '../base/shape.ts';

/** Of `?wait=`; a client that waits longer asks again. */
export const MAX_WAIT_SECONDS = 86_400;

export const waitQuery = object({
  wait: optional(
    map(
      text({
        max: 8,
        pattern: /^(?:\d{1,6}|true|false)$/,
        form: 'seconds, true or false',
        about:
          'How long to wait for the end of the job, in seconds; `false` or 0: not at all, `true`: to its end. A job that is not over then is answered 202 with its id.',
      }),
      (given) => {
        if (given === 'true') return MAX_WAIT_SECONDS;
        return given === 'false' ? 0 : Math.min(MAX_WAIT_SECONDS, Number(given));
      },
    ),
  ),
});
