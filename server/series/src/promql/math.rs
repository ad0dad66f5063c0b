//! Functions of one number.

/// The function of this name.
pub(crate) fn named(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => f64::exp,
        "sqrt" => f64::sqrt,
        "ln" => f64::ln,
        "log2" => f64::log2,
        "log10" => f64::log10,
        "sgn" => |value| {
            if value > 0.0 {
                1.0
            } else if value < 0.0 {
                -1.0
            } else {
                value
            }
        },
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        "asinh" => |value| if value.abs() > LARGE { (value.abs().ln() + std::f64::consts::LN_2).copysign(value) } else { value.asinh() },
        "acosh" => |value| if value > LARGE { value.ln() + std::f64::consts::LN_2 } else { value.acosh() },
        "atanh" => f64::atanh,
        "deg" => |value| value * 180.0 / std::f64::consts::PI,
        "rad" => |value| value * std::f64::consts::PI / 180.0,
        _ => return None,
    })
}

/// From here on the square in the definition of `asinh` and `acosh` could overflow and 1 no longer counts.
const LARGE: f64 = (1_u64 << 28) as f64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_arguments_do_not_overflow() {
        for name in ["asinh", "acosh"] {
            let f = named(name).unwrap();
            assert!((f(1e300) - 691.468_675_078_773_7).abs() < 1e-9, "{name}: {}", f(1e300));
            assert_eq!(f(f64::INFINITY), f64::INFINITY);
            assert!(f(f64::NAN).is_nan());
            // Both sides of the switch agree.
            assert!((f(LARGE) - f(LARGE * (1.0 + f64::EPSILON))).abs() < 1e-12);
        }
        assert_eq!(named("asinh").unwrap()(f64::NEG_INFINITY), f64::NEG_INFINITY);
    }
}
