//! What many measurements come to.

/// The value that this share of them does not reach.
pub(crate) fn percentile(values: impl IntoIterator<Item = f64>, share: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share) as usize;
    values[at.min(values.len() - 1)]
}

/// The best of ten, in every ten: whatever else the machine does only makes them more.
pub(crate) fn undisturbed(values: impl IntoIterator<Item = f64>) -> f64 {
    percentile(values, 0.1)
}
