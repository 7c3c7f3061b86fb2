"""The mutants that are no faults: a change that no input, cotangent or transform can show.

A row is (rule, operator, label) and the reason; the label "*" stands for every one. They do not
count among the mutants, and a checker that rejects one is wrong, or the reason is.
"""

_FLAT_BELOW = "the cotangent is zero already where the argument is negative"
_FLAT_OUTSIDE = "the cotangent is zero already beyond the bounds, which lie within the threshold"
_COMPARED = "the residual is only compared, and a comparison has no derivative that could be lost"
_EITHER = "the definition takes the mean of both sides: it states no choice, and 1 is as good as 0"
_ONTO_ZEROS = "what is overwritten, or left out of the sum, are the zeros that the sum starts from"
_SYMMETRIC = "the cotangent is a symmetric matrix"
_COUNT = "the divisor is a count, whose square is exact and far from overflow"
_BOUNDED = "the divisor is a sum of exponentials between 1 and their number: so is its square"
_BETWEEN = "the domain keeps the divisor between 0.3 and 3, and its square within 0.1 and 9"
_CONSTANT = "the divisor is a constant of the order of 1, and so is its square"
_COLUMN = "a column has one cotangent: what is not a number anywhere in it is so in every row"
_WHOLE = "an inverse mixes all elements: what is not a number anywhere is so everywhere"
_CHANCE = "a random number that moves by a millionth crosses the rate once in millions of draws"

EQUIVALENT: dict[tuple[str, str, str], str] = {
    # Nothing is left to be lost, scaled or differentiated.
    ("relu_maximum", "negative_half", "0"): _FLAT_BELOW,
    ("relu_where", "negative_half", "0"): _FLAT_BELOW,
    ("relu_jvp", "negative_half", "y0"): _FLAT_BELOW,
    ("safe_sqrt", "negative_half", "0"): _FLAT_BELOW,
    ("safe_log_jvp", "negative_half", "y0"): _FLAT_BELOW,
    ("hard_tanh", "lose_tail", "0"): _FLAT_OUTSIDE,
    ("hard_tanh", "early_threshold", "0"): _FLAT_OUTSIDE,
    ("clamp_jvp", "lose_tail", "y0"): _FLAT_OUTSIDE,
    ("clamp_jvp", "early_threshold", "y0"): _FLAT_OUTSIDE,
    ("relu_maximum", "stopped_residuals", "residuals"): _COMPARED,
    ("relu_maximum", "scaled_second_order", "residuals"): _COMPARED,
    ("minimum_columns", "stopped_residuals", "residuals"): _COMPARED,
    ("minimum_columns", "scaled_second_order", "residuals"): _COMPARED,
    # Either side of the comparison is right.
    ("relu_jvp", "other_side_of_kink", "0:gt"): _EITHER,
    ("clamp_jvp", "other_side_of_kink", "0:gt"): _EITHER,
    ("clamp_jvp", "other_side_of_kink", "1:lt"): _EITHER,
    ("sinc_jvp", "other_side_of_kink", "0:lt"): "series and quotient agree where |x| is one half",
    # Sums that begin with zeros, and indices that never meet.
    ("depthwise_conv", "lose_summand", "0:add[0]"): _ONTO_ZEROS,
    ("conv_transpose", "lose_summand", "0:add[0]"): _ONTO_ZEROS,
    ("sinc_jvp", "lose_summand", "0:add[0]"): _ONTO_ZEROS,
    ("sinc_jvp", "lose_summand", "0:add[1]"): "the series' last term is below 1e-17 of its first",
    ("dropout", "lose_summand", "2:add[1]"): "the random numbers begin at 0, which is added",
    ("conv1d", "overwrite_duplicates", "0:scatter-add"): _ONTO_ZEROS,
    ("avg_pool", "overwrite_duplicates", "0:scatter-add"): _ONTO_ZEROS,
    ("top_k", "overwrite_duplicates", "0:scatter-add"): "the k places in a row are all different",
    ("dropout", "perturb_equation", "0:bitcast_convert_type"): _CHANCE,
    ("dropout", "perturb_equation", "2:sub"): _CHANCE,
    ("dropout", "perturb_equation", "4:add"): _CHANCE,
    ("quadratic_form", "transpose", "1"): _SYMMETRIC,
    ("cholesky", "transpose", "0"): _SYMMETRIC,
    # Quotients a/b whose divisor cannot be large, nor small: ab/b² overflows only for cotangents
    # within a factor of b of the largest number.
    ("minimum_columns", "square_the_divisor", "*"): _COUNT,
    ("masked_mean", "square_the_divisor", "*"): _COUNT,
    ("batch_norm", "square_the_divisor", "*"): _COUNT,
    ("layer_norm", "square_the_divisor", "*"): _COUNT,
    ("rms_norm", "square_the_divisor", "*"): _COUNT,
    ("standardize", "square_the_divisor", "*"): _COUNT,
    ("avg_pool", "square_the_divisor", "*"): _COUNT,
    ("global_avg_pool", "square_the_divisor", "*"): _COUNT,
    ("rotary", "square_the_divisor", "*"): _COUNT,
    ("logsumexp", "square_the_divisor", "*"): _BOUNDED,
    ("cross_entropy_labels", "square_the_divisor", "*"): _BOUNDED,
    ("attention", "square_the_divisor", "*"): _BOUNDED,
    ("softmax_columns_jvp", "square_the_divisor", "*"): _BOUNDED,
    ("newton_sqrt", "square_the_divisor", "*"): _BETWEEN,
    ("kepler", "square_the_divisor", "*"): _BETWEEN,
    ("dropout", "square_the_divisor", "*"): _CONSTANT,
    ("elu", "other_side_of_kink", "1:gt"): (
        "the first derivative is the same; the second jumps there, and is right on one side"
    ),
    ("quadratic_form", "one_hot_product", "0"): (
        "the matrix is as large as the one that is an argument"
    ),
    ("softsign", "square_the_divisor", "0:div"): (
        "where the square of the divisor overflows, the quotient is below the normal numbers"
    ),
    ("gelu_tanh", "overflowing_sigmoid", "0:tanh"): (
        "the rule's own clip keeps the exponentials finite, and 1 + tanh cancels in either form"
    ),
    ("gelu_erf", "square_the_divisor", "0:div"): _CONSTANT,
    ("gelu_erf", "square_the_divisor", "1:div"): _CONSTANT,
    # Rows that the rule mixes by itself.
    ("batch_norm", "touch_other_rows", "0"): _COLUMN,
    ("weight_norm", "touch_other_rows", "0"): _COLUMN,
    ("softmax_columns_jvp", "touch_other_rows", "y0"): _COLUMN,
    ("inverse", "touch_other_rows", "0"): _WHOLE,
    ("equilibrium", "touch_other_rows", "0"): _WHOLE,
}
