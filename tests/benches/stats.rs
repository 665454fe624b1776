//! Order statistics. Medians and ranges, since means of a noisy machine mean little.

use serde::Serialize;

/// A sample's summary, in the sample's unit.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Summary {
    pub(crate) n: usize,
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) p99: f64,
}

/// Summarises `values`; `None` when there are none.
pub(crate) fn summary(values: &[f64]) -> Option<Summary> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    Some(Summary { n: sorted.len(), median: median(&sorted), min, max, p99: nearest(&sorted, 0.99) })
}

/// Median of the ratios `a[i] / b[i]`: paired by round, so that drift between rounds cancels.
pub(crate) fn ratio(a: &[f64], b: &[f64]) -> Option<Summary> {
    let ratios: Vec<f64> = a.iter().zip(b).filter(|(_, b)| **b > 0.0).map(|(a, b)| a / b).collect();
    summary(&ratios)
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match (sorted.len() % 2, sorted.get(middle.wrapping_sub(1)), sorted.get(middle)) {
        (0, Some(low), Some(high)) => f64::midpoint(*low, *high),
        (_, _, Some(value)) => *value,
        _ => f64::NAN,
    }
}

/// Nearest-rank percentile, `0 < p <= 1`.
fn nearest(sorted: &[f64], p: f64) -> f64 {
    let rank = (p * sorted.len() as f64).ceil().max(1.0);
    // Within the slice's length, so it fits.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let index = rank as usize - 1;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries() {
        assert!(summary(&[]).is_none());
        let odd = summary(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.n, odd.median, odd.min, odd.max, odd.p99), (3, 2.0, 1.0, 3.0, 3.0));
        assert_eq!(summary(&[4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        let hundred: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(summary(&hundred).unwrap().p99, 198.0);
    }

    #[test]
    fn ratios_are_paired() {
        let r = ratio(&[10.0, 40.0, 30.0], &[5.0, 20.0, 10.0]).unwrap();
        assert_eq!((r.median, r.max), (2.0, 3.0));
        assert!(ratio(&[1.0], &[0.0]).is_none());
    }
}
