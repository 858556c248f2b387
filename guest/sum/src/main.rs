//! The image of the guest `sum`.

#![no_std]
#![no_main]

use kit::metal::platform::Metal;
use sum::Sum;

kit::guest!(Sum<Metal>, []);
