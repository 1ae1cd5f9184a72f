//! Counting what is really allocated: the measured side of the `memory` metric.
