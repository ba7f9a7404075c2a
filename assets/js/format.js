// Numbers as people compare them.

const NONE = "–";
const missing = (value) => value === null || value === undefined || !Number.isFinite(value);

export const integer = (value) => (missing(value) ? NONE : Math.round(value).toLocaleString("en"));
export const loss = (value) => (missing(value) ? NONE : value.toFixed(3));
export const percent = (value) => (missing(value) ? NONE : `${Math.round(value)} %`);
export const degrees = (value) => (missing(value) ? NONE : `${Math.round(value)} °C`);
export const watts = (value) => (missing(value) ? NONE : `${Math.round(value)} W`);
export const epoch = (value) => (missing(value) ? NONE : value.toFixed(2));

export const megahertz = (value) => (missing(value) ? NONE : `${Math.round(value)} MHz`);

/** A share above or below, as a percentage with its sign: -2.1 %, +4 %. */
export function signed(share) {
  if (missing(share)) return NONE;
  const percents = 100 * share;
  const digits = Math.abs(percents) < 9.95 ? 1 : 0;
  const figure = Number(Math.abs(percents).toFixed(digits));
  return `${figure === 0 ? "±" : percents < 0 ? "−" : "+"}${figure} %`;
}

/** Kilowatt-hours: three digits that matter. */
export const kilowattHours = (value) => (missing(value) ? NONE : String(Number(value.toPrecision(3))));

/** Operations a second. */
export function flops(value) {
  if (missing(value)) return NONE;
  const [size, unit] = value >= 1e12 ? [1e12, "TFLOP/s"] : [1e9, "GFLOP/s"];
  return `${Number((value / size).toPrecision(3))} ${unit}`;
}

/** Learning rates: 2e-4, 1.5e-5. */
export function rate(value) {
  if (missing(value)) return NONE;
  if (value === 0) return "0";
  const [mantissa, exponent] = value.toExponential(2).split("e");
  return `${Number(mantissa)}e${Number(exponent)}`;
}

/** Short for an axis: three digits that matter. */
export function short(value) {
  if (missing(value)) return NONE;
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(3))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(3))}k`;
  if (size < 1e-3) return rate(value);
  return String(Number(value.toPrecision(3)));
}

/** Bytes in GB (2^30) with one decimal; small ones in MB. */
export function bytes(value) {
  if (missing(value)) return NONE;
  const gigabytes = value / 2 ** 30;
  if (gigabytes >= 0.1) return `${gigabytes.toFixed(1)} GB`;
  return `${Math.round(value / 2 ** 20)} MB`;
}

export function duration(seconds) {
  if (missing(seconds)) return NONE;
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  const minutes = Math.round(whole / 60);
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** How long, roughly: for what is left. */
export function roughly(seconds) {
  if (missing(seconds)) return NONE;
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  return duration(seconds);
}

/** When something was: the time if it was today, else the day. */
export function when(epochSeconds) {
  if (missing(epochSeconds)) return "";
  const then = new Date(epochSeconds * 1000);
  const time = `${String(then.getHours()).padStart(2, "0")}:${String(then.getMinutes()).padStart(2, "0")}`;
  if (then.toDateString() === new Date().toDateString()) return time;
  const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
  return `${then.getDate()} ${months[then.getMonth()]}`;
}
