//! Nothing: what is proved is in the tests of this package.
